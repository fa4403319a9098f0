// Which path the next picture takes, and with which model; and sees to it that the models which it wants are here.

import { select } from "./limits.js";
import { PathChoice } from "./path_choice.js";

/** @typedef {import("./limits.js").Card} Card */
/** @typedef {import("./limits.js").Capability} Capability */
/** @typedef {"device" | "network" | "auto"} Mode */

/** What a frame may take on this device: ten frames a second, as data/devices/browser.toml has it. */
const BUDGET_MS = 100;
/** @type {import("./limits.js").Target} */
const TARGET = { max_ms: BUDGET_MS, max_download_s: 30, frames_per_s: 1e3 / BUDGET_MS };

/** Chooses for a UE. `wish`: the name of the model that a reader has chosen; null: the best that fits. */
export class Chooser {
  paths = new PathChoice(TARGET, { budgetMs: BUDGET_MS });
  /** @type {{card: Card, share: number} | null} */
  downloading = null;
  #offered;
  #models;
  #tell;
  /** Models that could not be fetched or run here. @type {Set<string>} */
  #refused = new Set();
  /** When a model that is still being made may be asked for again, ms. */
  #notBefore = 0;

  /**
   * @param {Card[]} offered
   * @param {import("./models_here.js").ModelsHere} models
   * @param {{onProgress: () => void, onArrival: () => void, onProblem: (words: string) => void}} tell
   */
  constructor(offered, models, tell) {
    this.#offered = offered;
    this.#models = models;
    this.#tell = tell;
  }

  /**
   * The path of the next picture; a model that is wanted and not here begins to arrive.
   *
   * @param {Mode} mode
   * @param {string | null} wish
   * @param {Capability} capability
   * @returns {import("./path_choice.js").Choice}
   */
  choose(mode, wish, capability) {
    if (mode === "network") return { path: "network", card: null, reason: "as you chose" };
    this.#fetchWanted(mode, wish, capability);
    const held = this.usable(wish);
    if (mode === "auto") return this.paths.choose(held, capability, performance.now() / 1e3);
    const card = select(held, capability, TARGET).card ?? held[0] ?? null;
    return { path: "device", card, reason: card ? "as you chose" : "as you chose; its model is on the way" };
  }

  /** What is here and may draw. @param {string | null} wish */
  usable(wish) {
    return this.#allowed(this.#models.cards, wish);
  }

  /** Run a model no more that failed here. @param {Card} card */
  refuse(card) {
    this.#refused.add(card.name);
    this.paths.deviceFailed(performance.now() / 1e3);
  }

  /** Give models that failed another chance. */
  forgive() {
    this.#refused.clear();
  }

  /** @param {Card[]} cards @param {string | null} wish */
  #allowed(cards, wish) {
    return cards.filter(({ name }) => !this.#refused.has(name) && (wish === null || name === wish));
  }

  /** Download the best model that fits, unless it is here or coming; any at all, where the reader insists on one. */
  async #fetchWanted(mode, wish, capability) {
    if (this.downloading || performance.now() < this.#notBefore) return;
    const offered = this.#allowed(this.#offered, wish);
    const insists = (mode === "device" || wish !== null) && !this.usable(wish).length;
    const card = select(offered, capability, TARGET).card ?? (insists ? offered[0] : null);
    if (!card || this.#models.held.has(card.name)) return;
    this.downloading = { card, share: 0 };
    const problem = await this.#download(card);
    this.downloading = null;
    if (problem) this.#tell.onProblem(problem);
    else this.#tell.onArrival();
  }

  /** @returns {Promise<string | null>} why it did not arrive, if it did not */
  async #download(card) {
    try {
      await this.#models.download(card, (share) => {
        this.downloading = { card, share };
        this.#tell.onProgress();
      });
      this.paths.forgetModels();
      return null;
    } catch (error) {
      if (error.retryAfterS) this.#notBefore = performance.now() + 1e3 * error.retryAfterS;
      else this.#refused.add(card.name);
      return `${card.name} did not arrive: ${error.message}`;
    }
  }
}

// Device or network: where the next view comes from, and why. The rules and the hysteresis of
// crowdnerf_lab/network/ues/path_choice.py, which explains them; tests/widgets/test_path_choice.py replays both.

import { frameMs, misses, reselect, select } from "./limits.js";

/** @typedef {import("./limits.js").Card} Card */
/** @typedef {import("./limits.js").Capability} Capability */
/** @typedef {import("./limits.js").Target} Target */
/** @typedef {{path: "device" | "network", card: Card | null, reason: string}} Choice */

/**
 * How reluctant a UE is to change paths.
 *
 * @typedef {object} Hysteresis
 * @property {number} margin - share by which circumstances must be better before the device is taken up again
 * @property {number} restS - at least so long after it was put down
 * @property {number} lateFrames - in a row that are too late, before the device is left
 * @property {number} probationS - for so long then, doubled each time
 * @property {number} silenceS - for which a network that failed is not asked, doubled each time
 * @property {number} longestS - of either
 */

/** @type {Hysteresis} */
export const HYSTERESIS = { margin: 0.1, restS: 1, lateFrames: 3, probationS: 4, silenceS: 0.5, longestS: 60 };
/** Frames on time after which a device has made up for having been late. */
const FORGIVEN_AFTER = 10;

/** Chooses between the paths, view after view. Times are seconds of any clock that only moves forward. */
export class PathChoice {
  #target;
  #budgetMs;
  #hysteresis;
  /** @type {import("./limits.js").Selection | null} */
  #selection = null;
  #onDevice = false;
  #putDownAt = -Infinity;
  #late = 0;
  #onTime = 0;
  #probationS = 0;
  #barredUntil = -Infinity;
  #silenceS = 0;
  #silentUntil = -Infinity;
  #silentBecause = "";

  /**
   * @param {Target} target
   * @param {{budgetMs: number, hysteresis?: Hysteresis}} settings - budgetMs: what a frame may take on the device
   */
  constructor(target, { budgetMs, hysteresis = HYSTERESIS }) {
    this.#target = { ...target, max_download_s: null }; // what is here is here: its download is over
    this.#budgetMs = budgetMs;
    this.#hysteresis = hysteresis;
  }

  /**
   * Where the next view should come from, given the models that are here.
   *
   * @param {Card[]} held
   * @param {Capability} capability
   * @param {number} now
   * @returns {Choice}
   */
  choose(held, capability, now) {
    const choice = this.#preferred(held, capability, now);
    if (choice.path === "device" || now >= this.#silentUntil) return choice;
    const any = this.#withWhatIsHere(held, capability);
    return any
      ? { path: "device", card: any, reason: `the network fails (${this.#silentBecause}); with what is here` }
      : choice;
  }

  /** A frame was drawn here. @param {number} milliseconds @param {number} now */
  deviceTook(milliseconds, now) {
    if (milliseconds <= this.#budgetMs) {
      this.#late = 0;
      this.#onTime += 1;
      if (this.#onTime >= FORGIVEN_AFTER) this.#probationS = 0;
      return;
    }
    this.#onTime = 0;
    this.#late += 1;
    if (this.#late >= this.#hysteresis.lateFrames) {
      this.#late = 0;
      this.deviceFailed(now);
    }
  }

  /** The model could not be loaded or run. @param {number} now */
  deviceFailed(now) {
    this.#probationS = this.#longer(this.#probationS, this.#hysteresis.probationS);
    this.#barredUntil = now + this.#probationS;
  }

  /** A view came from the network. */
  networkAnswered() {
    this.#silenceS = 0;
    this.#silentUntil = -Infinity;
  }

  /** No view came from the network. @param {string} why @param {number} now @param {number} [retryAfterS] */
  networkFailed(why, now, retryAfterS = 0) {
    this.#silenceS = this.#longer(this.#silenceS, this.#hysteresis.silenceS);
    this.#silentUntil = now + Math.max(this.#silenceS, retryAfterS);
    this.#silentBecause = why;
  }

  /** Choose afresh: the models that are held have changed. */
  forgetModels() {
    this.#selection = null;
    this.#late = 0;
    this.#barredUntil = -Infinity;
  }

  /** @returns {Choice} */
  #preferred(held, capability, now) {
    if (!held.length) return this.#network("no model is on this device yet", now);
    if (now < this.#barredUntil) return this.#network(`the device misses its ${this.#budgetMs} ms a frame`, now);
    if (!this.#onDevice && now < this.#putDownAt + this.#hysteresis.restS) {
      return this.#network("the device has only just been left", now);
    }
    const before = this.#selection;
    const atEase = this.#onDevice || before === null;
    const considered = atEase ? capability : tightened(capability, this.#hysteresis.margin);
    this.#selection = before
      ? reselect(before, held, considered, this.#target)
      : select(held, considered, this.#target);
    const { card, reason } = this.#selection;
    if (!card) return this.#network(reason, now);
    const returned = !this.#onDevice && before !== null;
    this.#onDevice = true;
    return { path: "device", card, reason: returned ? `it fits again: ${reason}` : reason };
  }

  /** @returns {Choice} */
  #network(reason, now) {
    if (this.#onDevice) {
      this.#onDevice = false;
      this.#putDownAt = now;
    }
    return { path: "network", card: null, reason };
  }

  /** The model that breaks the fewest limits, of equals the fastest, if this browser can run any at all. */
  #withWhatIsHere(held, capability) {
    const runs = held
      .map((card) => ({ card, missed: misses(card, capability, this.#target), ms: frameMs(card, capability) }))
      .filter(({ missed }) => !missed.some(({ constraint }) => constraint === "runtime" || constraint === "precision"));
    return runs.sort((a, b) => a.missed.length - b.missed.length || a.ms - b.ms)[0]?.card ?? null;
  }

  #longer(before, first) {
    return Math.min(Math.max(2 * before, first), this.#hysteresis.longestS);
  }
}

/** A UE a little worse off in all that wavers. @param {Capability} capability @param {number} margin */
function tightened(capability, margin) {
  const left = 1 - margin;
  const { memory_mb, busy, battery_wh } = capability;
  return {
    ...capability,
    memory_mb: memory_mb * left,
    busy: 1 - (1 - busy) * left,
    battery_wh: battery_wh === null ? null : battery_wh * left,
  };
}

// The models that this UE holds: downloaded once, opened when they are to draw.

import { openModel } from "./model_renderer.js";

/** @typedef {import("./limits.js").Card} Card */
/** @typedef {import("./model_renderer.js").ModelRenderer} ModelRenderer */

/**
 * @typedef {object} HeldModel
 * @property {Card} card
 * @property {Uint8Array} content
 * @property {number} bytes - that travelled
 * @property {number} downloadMs
 */

/** What this UE holds of an event's models. */
export class ModelsHere {
  /** @type {Map<string, HeldModel>} */
  held = new Map();
  #source;
  #link;
  #threads;
  /** @type {Promise<Uint8Array> | null} */
  #runtime = null;
  /** @type {{name: string, renderer: Promise<ModelRenderer>} | null} */
  #open = null;

  /**
   * @param {import("./kernel_source.js").Source} source
   * @param {import("./link.js").Link} link
   * @param {number} threads - that a student may use
   */
  constructor(source, link, threads) {
    this.#source = source;
    this.#link = link;
    this.#threads = threads;
  }

  /** Cards of what is here. */
  get cards() {
    return [...this.held.values()].map(({ card }) => card);
  }

  /**
   * Download a model over the link.
   *
   * @param {Card} card
   * @param {(share: number) => void} onProgress - in [0, 1]
   */
  async download(card, onProgress) {
    const begin = performance.now();
    const runtime = card.kind === "light_field" ? this.#getRuntime() : null;
    const { content, bytes } = await this.#source.model(card.name);
    await this.#link.carry(bytes, "down", onProgress);
    await runtime;
    this.held.set(card.name, { card, content, bytes, downloadMs: performance.now() - begin });
  }

  /**
   * The renderer of a model that is here. One is open at a time, so that their memory does not add up.
   *
   * @param {string} name
   * @returns {Promise<ModelRenderer>}
   */
  open(name) {
    if (this.#open?.name !== name) {
      this.close();
      const means = { runtime: () => this.#getRuntime(), threads: this.#threads };
      const { card, content } = this.held.get(name);
      this.#open = { name, renderer: openModel(card, content, means) };
      this.#open.renderer.catch(() => {}); // told to whoever awaits it
    }
    return this.#open.renderer;
  }

  /** Close what is open; it can be opened again. */
  close() {
    this.#open?.renderer.then((renderer) => renderer.close(), () => {});
    this.#open = null;
  }

  /** Forget all models: the event has newer ones. */
  clear() {
    this.close();
    this.held.clear();
  }

  /** The runtime is part of a UE's software: it is fetched once and its bytes are not the link's. */
  #getRuntime() {
    this.#runtime ??= this.#source.runtime().catch((error) => {
      this.#runtime = null;
      throw error;
    });
    return this.#runtime;
  }
}

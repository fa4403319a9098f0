// What was measured of one path: times of its pictures, bytes, and how close it comes to a lossless view.

/** Pictures whose median time is shown. */
const RECENT = 30;

/** Figures of one path. */
export class PathFigures {
  pictures = 0;
  /** Of the last picture. @type {number | null} */
  ms = null;
  /** Against the network's lossless view of the same camera, dB. @type {number | null} */
  psnr = null;
  /** Of the last picture, in words: what its time went into, or at which scale it was drawn. */
  about = "";
  #recent = /** @type {number[]} */ ([]);

  /** @param {number} milliseconds @param {string} about */
  drew(milliseconds, about) {
    this.pictures += 1;
    this.ms = milliseconds;
    this.about = about;
    this.psnr = null;
    this.#recent = [...this.#recent.slice(1 - RECENT), milliseconds];
  }

  /** Median time of the last pictures, ms; null before the first. */
  get medianMs() {
    const sorted = [...this.#recent].sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : null;
  }

  /** Another model draws from now on: its times are its own. */
  forget() {
    this.#recent = [];
    this.pictures = 0;
  }

  /** As a document, for whoever keeps it. */
  get document() {
    return { pictures: this.pictures, ms: this.ms, median_ms: this.medianMs, psnr: this.psnr };
  }
}

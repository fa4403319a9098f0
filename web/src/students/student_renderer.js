// A light-field student on this device: one forward pass of a small network a picture, in WebAssembly, in a worker.

import workerSource from "./student_worker.js?bundled";

/**
 * An ideal pinhole camera.
 *
 * @typedef {object} Camera
 * @property {ArrayLike<number>} cameraToWorld - [3 4], row after row; OpenCV axes, metres
 * @property {number[]} focal - along x and y, pixels of a picture of width x height
 * @property {number[]} centre - principal point, pixels
 * @property {number} width
 * @property {number} height
 */

/**
 * What was opened, and how long that took.
 *
 * @typedef {object} Opened
 * @property {number} width - of every picture that this student draws
 * @property {number} height
 * @property {number} threads
 * @property {number} graphBytes - of the graph, unpacked
 * @property {number} unpackMs - of the runtime and of the graph
 * @property {number} sessionMs - of compiling the runtime, and of reading and optimizing the graph
 */

/**
 * @typedef {object} Drawn
 * @property {number} width
 * @property {number} height
 * @property {Float32Array} image - [h w 3], sRGB in [0, 1]
 * @property {Uint8ClampedArray<ArrayBuffer>} pixels - [h w 4], RGBA, as a canvas takes it
 * @property {number} ms - from the camera to the pixels, in the worker
 */

/** Draws what a student shows a camera; made by `StudentRenderer.open`, its worker lives until `close`. */
export class StudentRenderer {
  #worker;
  #address;
  /** @type {Map<number, {resolve: (answer: any) => void, reject: (reason: Error) => void}>} */
  #waiting = new Map();
  #requests = 0;
  /** Why nothing more will be answered. */
  #ended = "";

  /**
   * Start a worker with a student in it.
   *
   * @param {object} files
   * @param {Uint8Array} files.runtime - onnxruntime-web's WebAssembly, gzip'd or not
   * @param {Uint8Array} files.model - the student's ONNX graph, gzip'd or not
   * @param {number} [files.threads] - more than one only where the page is cross-origin isolated
   * @returns {Promise<StudentRenderer>}
   */
  static async open({ runtime, model, threads = 1 }) {
    const renderer = new StudentRenderer();
    const usable = globalThis.crossOriginIsolated ? threads : 1; // threads share memory, which other pages may not have
    try {
      renderer.opened = await renderer.#ask({ kind: "open", runtime, model, threads: usable });
    } catch (error) {
      renderer.close();
      throw error;
    }
    return renderer;
  }

  constructor() {
    this.#address = URL.createObjectURL(new Blob([workerSource], { type: "text/javascript" }));
    this.#worker = new Worker(this.#address, { type: "module" });
    this.#worker.onmessage = ({ data }) => this.#settle(data);
    this.#worker.onerror = ({ message }) => this.#fail(`the student's worker stopped (${message}); open it again`);
    /** @type {Opened | undefined} */
    this.opened = undefined;
  }

  /**
   * The picture of a camera, at the student's own size: focal and centre are scaled to it.
   *
   * @param {Camera} camera
   * @returns {Promise<Drawn>}
   */
  async render({ cameraToWorld, focal, centre, width, height }) {
    const scale = [this.opened.width / width, this.opened.height / height];
    const scaled = (/** @type {number[]} */ pair) => pair.map((value, axis) => value * scale[axis]);
    const request = { cameraToWorld: Float32Array.from(cameraToWorld), focal: scaled(focal), centre: scaled(centre) };
    return this.#ask({ kind: "render", ...request });
  }

  /** End the worker; what it was asked for and has not answered fails. */
  close() {
    this.#worker.terminate();
    URL.revokeObjectURL(this.#address);
    this.#fail("the student was closed; open it again");
  }

  /** @param {object} request @returns {Promise<any>} */
  #ask(request) {
    if (this.#ended) return Promise.reject(new Error(this.#ended));
    const id = ++this.#requests;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...request });
    });
  }

  #settle({ id, answer, problem }) {
    const asked = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (problem === undefined) asked?.resolve(answer);
    else asked?.reject(new Error(problem));
  }

  /** @param {string} reason - why nothing more will be answered */
  #fail(reason) {
    this.#ended ||= reason;
    for (const { reject } of this.#waiting.values()) reject(new Error(reason));
    this.#waiting.clear();
  }
}

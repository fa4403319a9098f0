// The network as a notebook's kernel plays it: questions and answers as anywidget messages with binary buffers.

/**
 * Where this UE's network is, whichever way it is reached.
 *
 * @typedef {object} Source
 * @property {() => Promise<EventOffer>} event - what there is
 * @property {(name: string) => Promise<{content: Uint8Array, bytes: number}>} model - bytes: that travelled
 * @property {() => Promise<Uint8Array>} runtime - onnxruntime-web's WebAssembly, gzip'd
 * @property {(name: string) => Promise<Blob>} probe - the network's picture of a model's first probe view
 * @property {(camera: CameraDocument, encoding: Encoding) => Promise<NetworkView>} view
 * @property {(report: object) => void} report - what was measured here
 */

/**
 * @typedef {object} EventOffer
 * @property {string} event
 * @property {number | null} version - of the event's models, where they have one
 * @property {import("./limits.js").Card[]} cards
 * @property {import("./link.js").LinkProfile[]} links
 */

/** @typedef {ReturnType<typeof import("../camera/pose.js").cameraOf>} CameraDocument */
/** @typedef {{format: "webp" | "png", quality: number}} Encoding */
/** @typedef {{content: Blob, renderMs: number, encodeMs: number, width: number, height: number}} NetworkView */

/** A network that said no. */
export class Refusal extends Error {
  /** @param {string} message @param {number} [retryAfterS] */
  constructor(message, retryAfterS = 0) {
    super(message);
    this.retryAfterS = retryAfterS;
  }
}

/** A kernel that has not answered for so long is not there any more, ms. Opening a field takes it a second. */
const PATIENCE_MS = 60_000;

/**
 * The kernel behind a widget.
 *
 * @param {{send: (content: object) => void, on: Function, off: Function}} model - anywidget's
 * @returns {Source & {close: () => void}}
 */
export function kernelSource(model) {
  /** @type {Map<string, {resolve: Function, reject: Function, timer: number}>} */
  const waiting = new Map();
  // The widget may be shown twice, and every answer is heard by both.
  const me = Math.random().toString(36).slice(2);
  let questions = 0;

  const onMessage = ({ id, problem, answer }, buffers) => {
    const question = waiting.get(id);
    if (!question) return;
    waiting.delete(id);
    clearTimeout(question.timer);
    if (problem !== undefined) question.reject(new Refusal(problem));
    else question.resolve({ ...answer, buffers: buffers.map(bytesOf) });
  };
  model.on("msg:custom", onMessage);

  const ask = (kind, about = {}) =>
    new Promise((resolve, reject) => {
      const id = `${me} ${++questions}`;
      const timer = setTimeout(() => {
        waiting.delete(id);
        reject(new Refusal("the kernel does not answer; run the cell again"));
      }, PATIENCE_MS);
      waiting.set(id, { resolve, reject, timer });
      model.send({ kind, id, ...about });
    });

  return {
    event: () => ask("event"),
    async model(name) {
      const [content] = (await ask("model", { name })).buffers;
      return { content, bytes: content.length };
    },
    runtime: async () => (await ask("runtime")).buffers[0],
    probe: async (name) => new Blob((await ask("probe", { name })).buffers, { type: "image/png" }),
    async view(camera, encoding) {
      const { buffers, media_type, render_ms, encode_ms, width, height } = await ask("view", { camera, encoding });
      const content = new Blob(buffers, { type: media_type });
      return { content, renderMs: render_ms, encodeMs: encode_ms, width, height };
    },
    report: (report) => model.send({ kind: "report", report }),
    close() {
      model.off("msg:custom", onMessage);
      waiting.forEach(({ timer }) => clearTimeout(timer));
    },
  };
}

/** Buffers come as DataViews. @param {DataView} buffer */
const bytesOf = (buffer) => new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);

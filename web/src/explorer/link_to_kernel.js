/** The explorer's talk with the kernel: choices as traits, looks and pictures as messages. */

import { traitOf, viewOfTrait } from "./camera_trait.js";

/** @typedef {import("../camera/pose.js").View} View */
/** @typedef {(message: any, buffers: DataView<ArrayBuffer>[]) => void} Receiver */

/**
 * Looks that may be on their way before a picture answers them. One would leave the kernel idle for a whole round
 * trip; each more shows the reader a camera that is older.
 */
const AHEAD = 3;
/** Milliseconds after which a look that nothing answered counts as lost. */
const PATIENCE_MS = 1000;

/**
 * A moving camera goes as messages, of which only AHEAD are ever unanswered: the newest waits for its turn and those
 * before it are forgotten. A camera at rest goes as the trait `camera`, which programs read and set, and explorers
 * share (`jslink`). Each message also reports the frames that were drawn since the last.
 *
 * @param {any} model  anywidget's
 * @param {Record<string, Receiver>} receivers  by the `kind` of message
 */
export function linkToKernel(model, receivers) {
  /** @type {object | null} */
  let ours = null;
  /** @type {View | null} */
  let wanted = null;
  /** @type {[pane: number, number: number][]} */
  let drawn = [];
  let asked = 0;
  let answered = 0;
  let askedAt = 0;

  /** Send what may go now. */
  const pump = () => {
    const lost = performance.now() - askedAt > PATIENCE_MS;
    if (wanted && (asked - answered < AHEAD || lost)) {
      asked += 1;
      askedAt = performance.now();
      model.send({ kind: "look", number: asked, camera: traitOf(wanted), drawn });
      wanted = null;
    } else if (drawn.length) model.send({ kind: "drawn", drawn });
    else return;
    drawn = [];
  };

  const onMessage = (/** @type {any} */ message, /** @type {DataView<ArrayBuffer>[]} */ buffers) =>
    receivers[message.kind](message, buffers ?? []);
  model.on("msg:custom", onMessage);
  /** @type {[string, () => void][]} */
  const observed = [];

  return {
    /** The value of a trait. @param {string} name */
    get: (name) => model.get(name),
    /** Change traits, here and in the kernel. @param {Record<string, any>} values */
    set(values) {
      for (const [name, value] of Object.entries(values)) model.set(name, value);
      model.save_changes();
    },
    /** The camera moves; linked explorers see it here, the kernel as soon as it can. @param {View} view */
    move(view) {
      ours = traitOf(view);
      model.set("camera", ours);
      wanted = view;
      pump();
    },
    /** The camera came to rest. @param {View} view */
    rest(view) {
      wanted = null;
      ours = traitOf(view);
      this.set({ camera: ours });
    },
    /** A frame of a pane was drawn, which answers a look. @param {{pane: number, number: number, look: number}} frame */
    report({ pane, number, look }) {
      drawn.push([pane, number]);
      answered = Math.max(answered, look);
      pump();
    },
    /** Somebody else moved the camera: the kernel, or a linked explorer. @param {(view: View) => void} listener */
    onCamera(listener) {
      this.onChange("camera", () => {
        const camera = model.get("camera");
        if (camera !== ours) listener(viewOfTrait(camera));
      });
    },
    /** @param {string} name @param {() => void} listener */
    onChange(name, listener) {
      model.on(`change:${name}`, listener);
      observed.push([name, listener]);
    },
    /** @param {Record<string, any>} message  with its `kind` */
    send: (message) => model.send(message),
    dispose() {
      model.off("msg:custom", onMessage);
      for (const [name, listener] of observed) model.off(`change:${name}`, listener);
    },
  };
}

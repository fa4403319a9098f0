/** The explorer's talk with the kernel: the camera and choices as traits, pictures as messages with buffers. */

import { traitOf, viewOfTrait } from "./camera_trait.js";

/** @typedef {import("../camera/pose.js").View} View */
/** @typedef {(message: any, buffers: DataView<ArrayBuffer>[]) => void} Receiver */

/**
 * The camera goes as a trait, not as messages: widgets keep at most one change on its way to the kernel and send the
 * newest value after it, so that cameras never queue, and explorers may be linked with `jslink`.
 *
 * @param {any} model  anywidget's
 * @param {Record<string, Receiver>} receivers  by the `kind` of message
 */
export function linkToKernel(model, receivers) {
  /** @type {object | null} */
  let sent = null;

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
    /** @param {View} view @param {boolean} moving */
    setCamera(view, moving) {
      sent = traitOf(view);
      this.set({ camera: sent, moving });
    },
    /** Somebody else moved the camera: the kernel, or a linked explorer. @param {(view: View) => void} listener */
    onCamera(listener) {
      this.onChange("camera", () => {
        const camera = model.get("camera");
        if (camera !== sent) listener(viewOfTrait(camera));
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

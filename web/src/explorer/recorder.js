/** Record a flight through key views: the kernel renders it, this shows how far it is and hands over the file. */

import { button, choice, element, labelled } from "../elements.js";
import { traitOf } from "./camera_trait.js";

/** @typedef {import("../camera/pose.js").View} View */

/** Fewest key views that make a path. */
const FEWEST = 2;

/**
 * @param {object} settings
 * @param {() => View} settings.view  where the reader is
 * @param {string[]} settings.names  of the models, of which one is filmed
 * @param {(message: object) => void} settings.send  to the kernel
 */
export function createRecorder({ view, names, send }) {
  /** @type {View[]} */
  let keys = [];
  let url = "";
  const count = element("output", { class: "cn-numbers" });
  const seconds = element("input", { type: "number", min: 1, max: 120, value: 6 });
  const format = choice([["mp4", "MP4"], ["gif", "GIF"]], { value: "mp4", onchange: () => {} });
  const model = choice(names.map((name) => [name, name]), { value: names[0], onchange: () => {} });
  const progress = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "frames recorded" });
  const outcome = element("span", { role: "status" });
  const record = button("Record", () => begin());
  const stop = button("Stop", () => send({ kind: "stop_recording" }), { hidden: true });

  /** @param {View[]} next */
  const setKeys = (next) => {
    keys = next;
    count.textContent = `${keys.length} key views`;
    record.disabled = keys.length < FEWEST || !stop.hidden;
  };

  /** @param {boolean} recording */
  const setRecording = (recording) => {
    progress.hidden = stop.hidden = !recording;
    setKeys(keys);
  };

  const begin = () => {
    if (!seconds.reportValidity()) return;
    outcome.replaceChildren();
    progress.value = 0;
    setRecording(true);
    const cameras = keys.map(traitOf);
    send({ kind: "record", cameras, seconds: seconds.valueAsNumber, format: format.value, model: model.value });
  };

  setKeys([]);
  return {
    bar: element(
      "details",
      {},
      element("summary", {}, "Record a flight"),
      element(
        "div",
        { class: "cn-bar" },
        button("Add this view", () => setKeys([...keys, view()])),
        button("Start over", () => setKeys([])),
        count,
        ...(names.length > 1 ? [labelled("Of", model)] : []),
        labelled("Seconds", seconds),
        labelled("File", format),
        record,
        stop,
        progress,
        outcome,
      ),
    ),
    /** @param {{done: number, frames: number}} message */
    onProgress({ done, frames }) {
      progress.max = frames;
      progress.value = done;
    },
    /** @param {{file: string, media_type: string}} message @param {DataView<ArrayBuffer>} content */
    onRecorded({ file, media_type }, content) {
      setRecording(false);
      URL.revokeObjectURL(url);
      url = URL.createObjectURL(new Blob([content], { type: media_type }));
      const kilobytes = Math.ceil(content.byteLength / 1000);
      outcome.replaceChildren(element("a", { href: url, download: file }, `${file}, ${kilobytes} kB`));
    },
    /** @param {string} why */
    onFailed(why) {
      setRecording(false);
      outcome.replaceChildren(why);
    },
    dispose: () => URL.revokeObjectURL(url),
  };
}

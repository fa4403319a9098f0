/** The explorer: fly through models live from the kernel, side by side, under one camera. */

import { createCameraControls } from "../camera/controls.js";
import { KEYS } from "../camera/keyboard.js";
import { cameraOf } from "../camera/pose.js";
import { button, choice, element, keepKeys, labelled } from "../elements.js";
import { viewOfTrait } from "./camera_trait.js";
import { linkToKernel } from "./link_to_kernel.js";
import { createPane } from "./pane.js";
import { createPhotos } from "./photos.js";
import { createRecorder } from "./recorder.js";
import "../look.css";
import "./explorer.css";

/** @typedef {ReturnType<typeof linkToKernel>} Kernel */
/** @typedef {ReturnType<typeof createPane>} Pane */

/** The mode in which a model is shown as the phone of a certain UE would have taken it. */
const AS_TAKEN = "as taken";

/** Hand a file to the reader. @type {(url: string, name: string) => void} */
function download(url, name) {
  element("a", { href: url, download: name }).click();
}

/** What is drawn: the mode, and for appearances whose. @param {Kernel} kernel */
function createModeChoices(kernel) {
  const modes = kernel.get("modes").map((/** @type {string} */ mode) => [mode, mode === AS_TAKEN ? "as a UE saw it" : mode]);
  const ues = kernel.get("ues").map((/** @type {string} */ name) => [name, name]);
  const show = () => {
    whose.hidden = kernel.get("mode") !== AS_TAKEN;
    mode.value = kernel.get("mode");
  };
  const mode = choice(modes, { value: kernel.get("mode"), onchange: (value) => kernel.set({ mode: value }) });
  const ue = choice(ues, { value: kernel.get("ue"), onchange: (value) => kernel.set({ ue: value }) });
  const whose = labelled("UE", ue);
  kernel.onChange("mode", show);
  show();
  return [labelled("Show", mode), whose];
}

/** The keys, for whoever wants to know. */
function createHelp() {
  const rows = KEYS.map(([keys, effect]) => element("tr", {}, element("td", {}, element("kbd", {}, keys)), element("td", {}, effect)));
  return element(
    "details",
    {},
    element("summary", {}, "Keys and gestures"),
    element("table", {}, element("tbody", {}, ...rows)),
    element(
      "p",
      { class: "cn-faint" },
      "Drag to orbit; with Shift, the right button or two fingers to pan; wheel or pinch to come nearer. ",
      "Keys and wheel work once the picture has the focus: click it, or Tab to it.",
    ),
  );
}

/**
 * Copy text, or show it ready to be copied where a page may not reach the clipboard.
 *
 * @param {string} text
 * @param {HTMLElement} place
 */
async function copy(text, place) {
  try {
    await navigator.clipboard.writeText(text);
    place.replaceChildren("camera copied");
  } catch {
    const field = element("textarea", { value: text, readOnly: true, rows: 2, "aria-label": "camera as JSON" });
    place.replaceChildren(field);
    field.select();
  }
}

/**
 * anywidget's entry.
 *
 * @param {{model: any, el: HTMLElement}} place
 */
function render({ model, el }) {
  const picture = { width: model.get("width"), height: model.get("height") };
  /** @type {string[]} */
  const names = model.get("names");
  const panes = names.map((name) => createPane(name, picture));
  const status = element("span", { role: "status", class: "cn-faint" });

  const kernel = linkToKernel(model, {
    frame: async (head, [content]) => {
      await panes[head.pane].show(head, content);
      kernel.report(head);
    },
    say: ({ pane, text }) => panes[pane].say(text),
    photo: ({ row, media_type }, [content]) => photos.show(row, content, media_type),
    recording: (message) => recorder.onProgress(message),
    recorded: (message, [content]) => recorder.onRecorded(message, content),
    not_recorded: ({ why }) => recorder.onFailed(why),
  });

  const stage = element(
    "div",
    { class: "cn-stage", tabIndex: 0, role: "application", "aria-label": "Picture of the scene; arrow keys orbit" },
    ...panes.map((pane) => pane.figure),
  );
  const steeringButton = button("Look around", () => {
    controls.setSteering(controls.steering === "orbit" ? "look" : "orbit");
  });
  const controls = createCameraControls(stage, {
    view: viewOfTrait(model.get("camera")),
    imageHeight: () => panes[0].canvas.clientHeight,
    pace: model.get("pace"),
    onChange: (view, steered) => {
      if (steered) photos.leave();
      kernel.move(view);
    },
    onRest: () => kernel.rest(controls.view),
    onSteering: (steering) => steeringButton.setAttribute("aria-pressed", String(steering === "look")),
  });
  steeringButton.setAttribute("aria-pressed", "false");

  const photos = createPhotos({
    photos: model.get("photos"),
    picture,
    panes,
    camera: () => controls,
    ask: (row) => kernel.send({ kind: "photo", row }),
    onSnap: (row) => kernel.set({ photo: row }),
  });
  const recorder = createRecorder({ view: () => controls.view, names, send: kernel.send });
  kernel.onCamera((view) => {
    photos.leave();
    controls.place(view);
  });
  kernel.onChange("photo", () => photos.snapTo(kernel.get("photo")));

  const save = () =>
    panes.forEach((pane, i) => download(pane.png(), `${names[i].replace(/\W+/g, "_")}.png`));
  const copyCamera = () => copy(JSON.stringify(cameraOf(controls.view, picture.width, picture.height)), status);

  const root = element(
    "div",
    { class: "cn cn-explorer" },
    element("div", { class: "cn-bar" }, ...createModeChoices(kernel), ...photos.controls),
    stage,
    element(
      "div",
      { class: "cn-bar" },
      steeringButton,
      button("First view", () => controls.home()),
      button("Save view", save),
      button("Copy camera", copyCamera),
      status,
    ),
    recorder.bar,
    createHelp(),
  );
  el.append(root);
  keepKeys(root);
  kernel.send({ kind: "hello" });

  return () => {
    controls.dispose();
    photos.dispose();
    recorder.dispose();
    kernel.dispose();
  };
}

export default { render };

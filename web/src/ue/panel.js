// What a reader sees of the UE: two pictures side by side, what steers them, and what was measured.

import "../look.css";
import "./ue.css";
import { KEYS } from "../camera/keyboard.js";
import { createCameraControls } from "../camera/controls.js";
import { button, choice, element, labelled } from "../elements.js";
import { BrowserUE } from "./browser_ue.js";
import { offer, radios } from "./controls.js";
import { cardTable, findingsTable, measurementsTable } from "./tables.js";
import { psnrOf, titleOf } from "./limits.js";

/** @typedef {import("./browser_ue.js").Path} Path */
/** @typedef {import("./kernel_source.js").Source} Source */

const TITLES = { device: "This browser", network: "Network" };
/** @type {[string, string][]} */
const MODES = [["device", "Device"], ["network", "Network"], ["auto", "Auto"]];
const BEST = "";
const NO_LINK = "";
let panels = 0;

/**
 * Show a UE in an element.
 *
 * @param {HTMLElement} host
 * @param {Source} source
 * @returns {{ue: BrowserUE, close: () => void}}
 */
export function showUE(host, source) {
  const stages = { device: stageOf("device"), network: stageOf("network") };
  const surfaces = {
    show(path, canvas) {
      const { picture } = stages[path];
      if (picture.firstChild !== canvas) picture.replaceChildren(canvas);
      picture.style.aspectRatio = `${canvas.width} / ${canvas.height}`;
    },
  };
  let drawn = 0;
  const ue = new BrowserUE(source, surfaces, () => {
    drawn ||= requestAnimationFrame(() => {
      drawn = 0;
      refresh();
    });
  });
  const steering = controlsOf(ue);
  const words = element("p", { class: "cn-ue-reason", role: "status", "aria-live": "polite" }, "Starting …");
  const measured = element("div", { class: "cn-ue-measured" });
  const details = { model: foldedOf("The model's card"), browser: foldedOf("What this browser can do") };
  const root = element(
    "section",
    { class: "cn cn-ue", "aria-label": "The browser as a UE" },
    element("div", { class: "cn-ue-stages" }, stages.device.figure, stages.network.figure),
    words,
    steering.root,
    measured,
    details.model.root,
    details.browser.root,
    keysHelp(),
  );
  host.replaceChildren(root);

  const refresh = () => {
    words.textContent = ue.problem ?? `${TITLES[ue.choice.path]}: ${ue.choice.reason}`;
    words.classList.toggle("cn-problem", ue.problem !== null);
    for (const path of /** @type {Path[]} */ (["device", "network"])) stages[path].refresh(ue);
    steering.refresh();
    measured.replaceChildren(measurementsTable(ue));
    details.model.fill(() => cardTable(ue.choice.card ?? ue.held[0]?.card ?? null));
    details.browser.fill(() => findingsTable(ue.found));
    root.dataset.path = ue.choice.path;
    root.dataset.state = ue.figures.device.pictures ? "device" : ue.firstBy ? "network" : "starting";
  };

  const begin = async () => {
    try {
      const view = await ue.start();
      const cameras = [stages.device, stages.network].map(({ picture }) => steeredBy(picture, ue, view));
      cameras.forEach((camera, i) => (camera.follow = cameras[1 - i].controls));
    } catch (error) {
      ue.problem = error.message;
      refresh();
    }
  };
  begin();
  return {
    ue,
    close() {
      cancelAnimationFrame(drawn);
      ue.stop();
    },
  };
}

/** Let an element's gestures and keys move the UE's camera; the other stage's controls follow. */
function steeredBy(picture, ue, view) {
  const camera = { follow: null, controls: null };
  camera.controls = createCameraControls(picture, {
    view,
    onChange(next) {
      camera.follow?.place(next);
      ue.moveTo(next);
    },
    onRest: () => ue.rest(),
  });
  return camera;
}

/** One path's picture with its figures. @param {Path} path */
function stageOf(path) {
  const picture = element("div", {
    class: "cn-ue-picture",
    tabIndex: 0,
    role: "application",
    "aria-roledescription": "camera",
    "aria-label": `${TITLES[path]}'s picture: drag, or use the arrow keys, to move the camera`,
  });
  const badge = element("span", { class: "cn-ue-badge" }, "shown to the viewer");
  const title = element("span", { class: "cn-ue-title" }, TITLES[path]);
  const figures = element("span", { class: "cn-ue-figures" });
  const caption = element("figcaption", {}, title, badge, figures);
  return {
    picture,
    figure: element("figure", { class: `cn-ue-stage cn-ue-stage-${path}` }, picture, caption),
    refresh(ue) {
      const { medianMs, about } = ue.figures[path];
      const active = ue.choice.path === path;
      badge.hidden = !active;
      picture.parentElement.classList.toggle("cn-ue-active", active);
      const coming = path === "device" && ue.downloading && medianMs === null;
      const share = coming ? `downloading, ${(100 * ue.downloading.share).toFixed(0)} %` : "";
      const spent = medianMs === null ? share : `${medianMs.toFixed(0)} ms`;
      figures.textContent = [spent, about].filter(Boolean).join(" · ");
    },
  };
}

/** What steers the UE. @param {BrowserUE} ue */
function controlsOf(ue) {
  const name = `cn-ue-path-${++panels}`;
  const path = radios("Path", MODES, { name, value: ue.mode, onChange: (/** @type {any} */ mode) => ue.setMode(mode) });
  const model = choice([], { value: BEST, onchange: (value) => ue.setWish(value === BEST ? null : value) });
  const link = choice([], { value: NO_LINK, onchange: (value) => ue.setLink(profileOf(ue, value)) });
  const battery = batteryOf(ue);
  const compare = element("input", { type: "checkbox", checked: ue.comparing });
  compare.onchange = () => ue.setComparing(compare.checked);
  return {
    root: element(
      "div",
      { class: "cn-ue-controls" },
      path,
      labelled("Model", model),
      labelled("Link", link),
      battery.root,
      element("label", { class: "cn-ue-option" }, compare, "compare at rest"),
    ),
    refresh() {
      battery.refresh();
      if (!ue.offer) return;
      offer(model, [[BEST, "best that fits"], ...ue.offer.cards.map(named).sort(([, a], [, b]) => (a < b ? -1 : 1))]);
      offer(link, [[NO_LINK, "as it is"], ...ue.offer.links.map(linkNamed)]);
    },
  };
}

const profileOf = (ue, name) => ue.offer.links.find((profile) => profile.name === name) ?? null;

/** @returns {[string, string]} */
const named = (card) => [
  card.name,
  `${titleOf(card)}, ${card.width}×${card.height}, ${psnrOf(card).toFixed(1)} dB`,
];

/** @returns {[string, string]} */
const linkNamed = ({ name, title }) => [name, title];

/** The battery: set by hand, or emptied while one watches. @param {BrowserUE} ue */
function batteryOf(ue) {
  const range = { type: "range", min: "0", max: "100", value: "100" };
  const level = element("input", { ...range, "aria-label": "Battery, percent" });
  const shown = element("output", {}, "100 %");
  level.oninput = () => (ue.battery.charge = Number(level.value) / 100);
  const drain = button("Empty it", () => {
    ue.battery.draining = !ue.battery.draining;
    drain.ariaPressed = String(ue.battery.draining);
  });
  drain.ariaPressed = "false";
  const row = element("span", { class: "cn-ue-row" }, level, shown, drain);
  const name = element("span", {}, "Battery");
  return {
    root: element("div", { class: "cn-ue-field", role: "group", "aria-label": "Battery" }, name, row),
    refresh() {
      const percent = Math.round(100 * ue.battery.charge);
      shown.textContent = `${percent} %`;
      if (document.activeElement !== level || ue.battery.draining) level.value = String(percent);
    },
  };
}

/** Details that are filled when they are opened, and refreshed while they are. @param {string} title */
function foldedOf(title) {
  const body = element("div", { class: "cn-ue-folded" });
  const root = element("details", {}, element("summary", {}, title), body);
  let filling = () => element("span");
  root.addEventListener("toggle", () => root.open && body.replaceChildren(filling()));
  return {
    root,
    fill(make) {
      filling = make;
      if (root.open) body.replaceChildren(make());
    },
  };
}

function keysHelp() {
  const row = ([keys, effect]) => element("tr", {}, element("th", { scope: "row" }, keys), element("td", {}, effect));
  const rows = KEYS.map(row);
  const help = foldedOf("Keys, mouse and touch");
  help.fill(() =>
    element(
      "div",
      {},
      element("p", {}, "Drag to orbit, drag with two fingers or Shift to pan, pinch or turn the wheel to come nearer."),
      element("table", {}, element("tbody", {}, ...rows)),
    ),
  );
  return help.root;
}

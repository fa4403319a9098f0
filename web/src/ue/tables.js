// What was measured, found out and declared, as tables.

import { element } from "../elements.js";
import { psnrOf } from "./limits.js";

/** @typedef {import("./browser_ue.js").BrowserUE} BrowserUE */

const NOTHING = "–";
const shown = (value, digits, unit) => (value === null ? NOTHING : `${value.toFixed(digits)} ${unit}`);
const megabytes = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`);
const seconds = (ms) => (ms === undefined ? NOTHING : `${(ms / 1e3).toFixed(2)} s`);
const decibels = (value) => (value === Infinity ? "the same" : shown(value, 1, "dB"));

/** Rows of a name and what stands beside it. @param {string[][]} rows @param {string[]} [heads] */
function table(rows, heads = []) {
  const cell = (name, text, scope) => element(name, scope ? { scope } : {}, text);
  const body = rows.map(([name, ...values]) =>
    element("tr", {}, cell("th", name, "row"), ...values.map((value) => cell("td", value))),
  );
  const head = element("tr", {}, ...heads.map((text) => cell("th", text, "col")));
  return element("table", {}, ...(heads.length ? [element("thead", {}, head)] : []), element("tbody", {}, ...body));
}

/** Milliseconds, bytes and decibels of both paths. @param {BrowserUE} ue */
export function measurementsTable(ue) {
  const { device, network } = ue.figures;
  const held = ue.held.reduce((sum, { bytes }) => sum + bytes, 0);
  const rate = ({ medianMs }) => (medianMs === null ? NOTHING : `${(1e3 / medianMs).toFixed(1)} frames/s`);
  const views = ue.link.bytes.down - held;
  const first = (path) => seconds(ue.milestones[`${path}'s first picture`]);
  return table(
    [
      ["a picture, median", shown(device.medianMs, 0, "ms"), shown(network.medianMs, 0, "ms")],
      ["at most", rate(device), rate(network)],
      ["pictures", String(device.pictures), String(network.pictures)],
      ["received", held ? `${megabytes(held)} once` : NOTHING, `${megabytes(Math.max(0, views))} so far`],
      ["PSNR to the lossless view", decibels(device.psnr), decibels(network.psnr)],
      ["first picture after", first("device"), first("network")],
      ["energy, estimated", `${ue.battery.spentMj.toFixed(0)} mJ`, NOTHING],
    ],
    ["", "this browser", "network"],
  );
}

/** What a model's card says. @param {Record<string, any> | null} card */
export function cardTable(card) {
  if (!card) return element("p", { class: "cn-faint" }, "no model is on this device yet");
  const against = card.quality.psnr === null ? "probe views" : "held-out photos";
  const { median_ms, runtime, machine } = card.latency;
  return table([
    ["name", card.name],
    ["architecture", card.architecture],
    ["stored as", `${card.stored_as}, coding ${card.coding}`],
    ["picture", `${card.width} × ${card.height}`],
    ["size", megabytes(card.bytes)],
    ["quality", `${psnrOf(card).toFixed(1)} dB against ${against}`],
    ["measured", `${median_ms.toFixed(1)} ms a picture, ${runtime}, ${machine}`],
    ["energy", card.energy ? `${card.energy.frame_mj.toFixed(0)} mJ a picture; ${card.energy.assumption}` : NOTHING],
    ["seen by", `${card.provenance.trained_on?.length ?? 0} contributors`],
    ["licence", card.licence],
  ]);
}

/** What the browser was found to be able to do. @param {import("./capability.js").Findings | null} found */
export function findingsTable(found) {
  if (!found) return element("p", { class: "cn-faint" }, "not looked at yet");
  const { cores, memoryGb, simd, relaxedSimd, threads, graphics, webgpu, probeMs } = found;
  const yes = (value) => (value ? "yes" : "no");
  return table([
    ["processor cores", String(cores)],
    ["memory", memoryGb === null ? "not told" : `${memoryGb} GB or more`],
    ["WebAssembly SIMD", `${yes(simd)}, relaxed ${yes(relaxedSimd)}`],
    ["WebAssembly threads", threads > 1 ? String(threads) : "1: the page is not cross-origin isolated"],
    ["WebGL2", graphics ? `${graphics.name}${graphics.software ? " (software)" : ""}` : "no"],
    ["WebGPU", webgpu ?? "no"],
    ["speed probe", `${probeMs.toFixed(1)} ms`],
  ]);
}

// The UE: it draws what the viewer's camera sees, on this device or by asking the network, and says what that cost.

import { cameraOf } from "../camera/pose.js";
import { Battery } from "./battery.js";
import { capabilityOf, findings } from "./capability.js";
import { Chooser } from "./chooser.js";
import { firstView } from "./first_view.js";
import { lane } from "./lane.js";
import { psnrOf } from "./limits.js";
import { Link } from "./link.js";
import { ModelsHere } from "./models_here.js";
import { PathFigures } from "./path_figures.js";
import { decoded, pixelsOf, psnr } from "./picture.js";

/** @typedef {import("../camera/pose.js").View} View */
/** @typedef {import("./limits.js").Card} Card */
/** @typedef {import("./picture.js").Picture} Picture */
/** @typedef {import("./chooser.js").Mode} Mode */
/** @typedef {"device" | "network"} Path */

/** WebP's quality of the views that the network sends. */
const QUALITY = 80;
/** Bytes of a request for a view: a pose, a token, and the headers of HTTP. */
const REQUEST_BYTES = 900;
/** While the camera moves, a field is marched with so few pixels that a frame takes about so long. */
const MOVING_MS = 60;
const SMALLEST_SCALE = 0.25;
/** Frames after which what they took stands for what this device can do, instead of the probe. */
const MEASURED_AFTER = 5;
/** After which a network that failed without a word is asked again, s. */
const AGAIN_S = 2;
/** How often circumstances are looked at while nothing moves, ms. */
const LOOK_MS = 500;

/** A UE that lives in a page. Surfaces show its pictures; `onChange` is told when there is something else to read. */
export class BrowserUE {
  link = new Link();
  battery = new Battery();
  /** @type {Mode} */
  mode = "auto";
  /** The model that a reader has chosen; null: the best that fits. @type {string | null} */
  wish = null;
  /** Whether the other path draws too, and both are compared with a lossless view, whenever the camera rests. */
  comparing = true;
  /** @type {import("./path_choice.js").Choice} */
  choice = { path: "network", card: null, reason: "starting" };
  figures = { device: new PathFigures(), network: new PathFigures() };
  /** Milliseconds from `start` to each milestone. @type {Record<string, number>} */
  milestones = {};
  /** Who showed something first, in words. @type {string | null} */
  firstBy = null;
  /** What went wrong last, and whether it still matters. @type {string | null} */
  problem = null;
  /** @type {import("./kernel_source.js").EventOffer | null} */
  offer = null;
  /** @type {import("./capability.js").Findings | null} */
  found = null;
  /** @type {View | null} */
  view = null;

  #source;
  #surfaces;
  #onChange;
  #begin = performance.now();
  #capability = null;
  /** @type {ModelsHere | null} */
  #models = null;
  /** @type {Chooser | null} */
  #chooser = null;
  #lanes = {
    device: lane((asked) => this.#drawHere(asked)),
    network: lane((asked) => this.#askNetwork(asked)),
    truth: lane((asked) => this.#fetchTruth(asked)),
  };
  /** What each path shows, and the lossless view, with the view that they are of. */
  #shown = { device: null, network: null, truth: null };
  /** Of the device's pictures, those with all their pixels. */
  #fullFrames = new PathFigures();
  /** When the network may be asked again for a view. */
  #networkFrom = 0;
  #resting = true;
  #looking = 0;
  #stopped = false;
  /** Of a picture's sides that are marched while the camera moves. */
  #scale = 0.5;

  /**
   * @param {import("./kernel_source.js").Source} source
   * @param {{show: (path: Path, canvas: HTMLCanvasElement) => void}} surfaces
   * @param {() => void} onChange
   */
  constructor(source, surfaces, onChange) {
    this.#source = source;
    this.#surfaces = surfaces;
    this.#onChange = onChange;
  }

  /** Meet the network, show something, find out what this browser can do, and begin. @returns {Promise<View>} */
  async start() {
    const finding = findings();
    this.offer = await this.#source.event();
    this.#reached("event");
    const { event, cards } = this.offer;
    if (!cards.length) throw new Error(`${event} has no models yet; come back once the network has trained one`);
    const best = cards.reduce((a, b) => (psnrOf(b) > psnrOf(a) ? b : a));
    this.view = firstView(best);
    this.#showProbe(best);
    this.found = await finding;
    if (this.#stopped) return this.view;
    this.#capability = capabilityOf(this.found);
    this.#models = new ModelsHere(this.#source, this.link, this.found.threads);
    this.#chooser = new Chooser(cards, this.#models, {
      onProgress: () => this.#onChange(),
      onArrival: () => {
        this.#reached("model here");
        this.#choose();
      },
      onProblem: (problem) => {
        this.problem = problem;
        this.#choose();
      },
    });
    this.#looking = setInterval(() => this.#look(), LOOK_MS);
    this.#choose();
    return this.view;
  }

  /** End everything that runs. */
  stop() {
    this.#stopped = true;
    clearInterval(this.#looking);
    this.#models?.close();
  }

  /** The camera moved. @param {View} view */
  moveTo(view) {
    this.view = view;
    this.#resting = false;
    this.#draw();
  }

  /** The camera has come to rest. */
  rest() {
    this.#resting = true;
    this.#draw();
  }

  /** @param {Mode} mode */
  setMode(mode) {
    this.mode = mode;
    this.#choose();
  }

  /** @param {string | null} name - of a model; null: the best that fits */
  setWish(name) {
    this.wish = name;
    this.#chooser?.forgive();
    this.#choose();
  }

  /** @param {import("./link.js").LinkProfile | null} profile */
  setLink(profile) {
    this.link.profile = profile;
    this.#choose();
  }

  /** @param {boolean} comparing */
  setComparing(comparing) {
    this.comparing = comparing;
    this.#draw();
  }

  /** What is on its way, and how much of it has arrived. */
  get downloading() {
    return this.#chooser?.downloading ?? null;
  }

  /** The models that this device holds. */
  get held() {
    return this.#models ? [...this.#models.held.values()] : [];
  }

  /** What this UE says of itself now. */
  #capabilityNow() {
    const { profile } = this.link;
    return {
      ...this.#capability,
      link_mbit_s: profile?.down_mbit_s ?? this.#capability.link_mbit_s,
      rtt_ms: profile?.rtt_ms ?? this.#capability.rtt_ms,
      position: this.view?.position ?? null,
      battery_wh: this.battery.left,
    };
  }

  /** Look at circumstances that change by themselves, and ask again for what the network refused for a while. */
  #look() {
    this.battery.tick(performance.now());
    this.#choose();
    if (this.#resting && performance.now() > this.#networkFrom) this.#complete();
  }

  /** Choose the path of the next picture; draw it if that is another than before. */
  #choose() {
    if (!this.#chooser) return;
    const before = this.choice;
    this.choice = this.#chooser.choose(this.mode, this.wish, this.#capabilityNow());
    if (before.path !== this.choice.path || before.card !== this.choice.card) this.#draw();
    this.#onChange();
  }

  /** Have the chosen path draw the view; at rest the other one too, and the lossless view. */
  #draw() {
    if (!this.view) return;
    const asked = { view: this.view, full: this.#resting };
    this.#lanes[this.choice.path].ask(asked);
    if (this.#resting) this.#complete();
  }

  /** Have drawn, of the view at which the camera rests, what is not shown yet. */
  #complete() {
    const asked = { view: this.view, full: true };
    const wanted = this.comparing ? /** @type {const} */ (["device", "network", "truth"]) : [this.choice.path];
    for (const each of wanted) {
      if (this.#shown[each]?.view !== this.view && !this.#lanes[each].busy()) this.#lanes[each].ask(asked);
    }
  }

  async #drawHere({ view, full }) {
    const card = this.choice.card ?? this.#chooser.usable(this.wish)[0];
    if (!card) return;
    try {
      if (this.#shown.device?.card !== card) {
        this.figures.device.forget();
        this.#fullFrames.forget();
      }
      const renderer = await this.#models.open(card.name);
      this.#reached("model ready");
      const scale = full || !renderer.scales ? 1 : this.#scaleOf(card);
      const ms = await renderer.draw(view, { scale });
      this.#drew("device", renderer.canvas, ms, scale < 1 ? `at ${(100 * scale).toFixed(0)} % of the pixels` : "");
      this.#shown.device = { view, card, scale, pixels: full && this.comparing ? renderer.pixels() : null };
      this.#account(card, renderer, ms, scale);
      this.#measureAt(card);
    } catch (error) {
      this.#models.close();
      this.#chooser.refuse(card);
      this.problem = `${card.name} cannot be drawn here: ${error.message}`;
    }
    this.#compare();
  }

  /** What a frame tells of this device: its energy, whether it was late, and how fast the runtime is. */
  #account(card, { scales }, ms, scale) {
    this.battery.drew((card.energy?.frame_mj ?? 0) * scale ** 2);
    this.#chooser.paths.deviceTook(ms, performance.now() / 1e3);
    if (scale < 1) return;
    this.#fullFrames.drew(ms, "");
    const { pictures, medianMs } = this.#fullFrames;
    if (pictures >= MEASURED_AFTER) {
      this.#capability.relative_speed[scales ? "webgl" : "onnxruntime"] = card.latency.median_ms / medianMs;
    }
  }

  /** Pictures are compared at the size of the device's model: those of another size are asked for again.
   * @param {Card} card */
  #measureAt({ width }) {
    for (const path of /** @type {const} */ (["network", "truth"])) {
      if (this.#shown[path] && this.#shown[path].pixels.width !== width) this.#shown[path] = null;
    }
  }

  /** How much smaller a field is marched while the camera moves. */
  #scaleOf(card) {
    const shown = this.#shown.device;
    if (shown?.card !== card) return this.#scale;
    const scale = shown.scale * Math.sqrt(MOVING_MS / Math.max(this.figures.device.ms, 1));
    this.#scale = Math.min(1, Math.max(SMALLEST_SCALE, scale));
    return this.#scale > 0.9 ? 1 : this.#scale;
  }

  async #askNetwork({ view }) {
    const begin = performance.now();
    try {
      await this.link.carry(REQUEST_BYTES, "up");
      const answer = await this.#source.view(this.#camera(view), { format: "webp", quality: QUALITY });
      await this.link.carry(answer.content.size, "down");
      const bitmap = await decoded(answer.content);
      const about = `${answer.renderMs.toFixed(0)} ms to render, ${(answer.content.size / 1e3).toFixed(1)} kB`;
      this.#drew("network", canvasOf(bitmap), performance.now() - begin, about);
      this.#shown.network = { view, pixels: pixelsOf(bitmap) };
      this.#chooser.paths.networkAnswered();
    } catch (error) {
      this.problem = `no view from the network: ${error.message}`;
      this.#chooser.paths.networkFailed(error.message, performance.now() / 1e3, error.retryAfterS);
      this.#askAgainLater(error);
    }
    this.#compare();
  }

  /** The yardstick: not part of what this UE shows, so its bytes are not the link's. */
  async #fetchTruth({ view }) {
    try {
      const { content } = await this.#source.view(this.#camera(view), { format: "png", quality: 100 });
      this.#shown.truth = { view, pixels: pixelsOf(await decoded(content)) };
    } catch (error) {
      this.#askAgainLater(error); // the network's own lane says what is wrong
    }
    this.#compare();
  }

  #askAgainLater({ retryAfterS }) {
    this.#networkFrom = performance.now() + 1e3 * (retryAfterS || AGAIN_S);
  }

  /** Measure what is shown against the lossless view, once both are of the same camera; tell whoever listens. */
  #compare() {
    const { truth } = this.#shown;
    for (const path of /** @type {Path[]} */ (["device", "network"])) {
      const { pixels, view } = this.#shown[path] ?? {};
      if (truth && pixels && view === truth.view) this.figures[path].psnr = psnr(pixels, truth.pixels);
    }
    if (this.#resting) this.#source.report(this.report);
    this.#onChange();
  }

  /** The network's own picture of the first view came with the model's card: there is something to see at once. */
  async #showProbe(card) {
    const bitmap = await this.#source.probe(card.name).then(decoded).catch(() => null);
    if (!bitmap) return; // nobody waits for it: a view of the network's will come
    if (this.figures.network.pictures || this.figures.device.pictures) return;
    this.#surfaces.show("network", canvasOf(bitmap));
    this.#first("the network, a view made beforehand");
    this.#onChange();
  }

  #drew(path, canvas, ms, about) {
    this.problem = null;
    this.figures[path].drew(ms, about);
    this.#surfaces.show(path, canvas);
    this.#reached(`${path}'s first picture`);
    this.#first(path === "device" ? "this device" : "the network");
  }

  /** The camera of a view, at the size of the model that this device shows, else of the largest that there is. */
  #camera(view) {
    const largest = (a, b) => (a.width * a.height >= b.width * b.height ? a : b);
    const { width, height } = this.#shown.device?.card ?? this.offer.cards.reduce(largest);
    return cameraOf(view, width, height);
  }

  #first(who) {
    this.firstBy ??= who;
    this.#reached("first picture");
  }

  #reached(milestone) {
    this.milestones[milestone] ??= performance.now() - this.#begin;
  }

  /** What was measured, as a document. */
  get report() {
    const { device, network } = this.figures;
    return {
      mode: this.mode,
      path: this.choice.path,
      reason: this.choice.reason,
      model: this.#shown.device?.card.name ?? null,
      device: device.document,
      network: network.document,
      first_by: this.firstBy,
      milestones_ms: this.milestones,
      model_bytes: this.held.reduce((sum, { bytes }) => sum + bytes, 0),
      link: this.link.profile?.name ?? null,
      bytes: this.link.bytes,
      battery: this.battery.charge,
      capability: this.#capability,
      findings: this.found,
    };
  }
}

/** A bitmap on a canvas of its own. @param {ImageBitmap} bitmap */
function canvasOf(bitmap) {
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas;
}

/** One model's picture: frames as they come from the kernel, a photo laid over them, and how fast they come. */

import { element } from "../elements.js";

/**
 * @typedef {object} FrameHead  What comes with the bytes of a picture.
 * @property {number} pane  index of the model
 * @property {number} number  of the frame, rising
 * @property {number} look  number of the look that it answers; 0 for a camera at rest
 * @property {number} width  pixels
 * @property {number} height  pixels
 * @property {boolean} full  whether this is the picture at full resolution and quality
 * @property {number} render_ms
 * @property {string} media_type
 * @property {string} note  what else to say of it, if anything
 * @property {Legend | null} legend  null where colours are the scene's own
 */

/**
 * @typedef {object} Legend  How to read a false colour.
 * @property {string} title
 * @property {string} unit
 * @property {number} low  in the first of `stops`
 * @property {number} high  in the last of `stops`
 * @property {boolean} logarithmic  whether equal steps of colour are equal factors
 * @property {string[]} stops  colours at equal steps
 */

/** Share of the newest interval in the frame rate shown. */
const NEWEST = 0.2;
/** The numbers under a picture stand for so long, ms. */
const READABLE_MS = 300;
/** Frames farther apart (ms) tell of a rest, not of a rate. */
const PAUSE_MS = 500;

/** @type {(head: FrameHead, rate: number) => string} */
function caption({ width, height, full, render_ms, note }, rate) {
  const size = full ? "full resolution" : `${width} × ${height}`;
  const speed = full || !rate ? `${Math.round(render_ms)} ms` : `${Math.round(rate)} frames/s`;
  return [size, speed, note].filter(Boolean).join(" · ");
}

/** @type {(legend: Legend) => HTMLElement[]} */
function legendOf({ title, unit, low, high, logarithmic, stops }) {
  const bar = element("span", { class: "cn-scale", role: "presentation" });
  bar.style.background = `linear-gradient(to right, ${stops.join()})`;
  const number = (/** @type {number} */ value) => `${Number(value.toPrecision(2))} ${unit}`.trim();
  const words = [title + (logarithmic ? ", logarithmic" : ""), number(low), number(high)];
  const [name, least, most] = words.map((text) => element("span", {}, text));
  return [name, least, bar, most];
}

/**
 * A pane of a picture so large at full resolution. Its figure tells in `data-*` what was drawn last: frames (count),
 * full ("true" once at full resolution), width and height of the picture that came, number of its frame.
 *
 * @param {string} name  of the model
 * @param {{width: number, height: number}} size  pixels at full resolution
 */
export function createPane(name, { width, height }) {
  const canvas = element("canvas", { width, height, role: "img", "aria-label": `${name}: no picture yet` });
  const photo = element("img", { class: "cn-photo", alt: "", hidden: true });
  const status = element("span", { class: "cn-faint cn-numbers" }, "waiting for the kernel");
  const legend = element("div", { class: "cn-legend", hidden: true });
  const figure = element(
    "figure",
    { class: "cn-pane" },
    element("div", { class: "cn-picture" }, canvas, photo),
    element("figcaption", {}, element("b", {}, name), " ", status, legend),
  );
  /** @type {string} */
  let explained = "null";
  canvas.style.aspectRatio = `${width} / ${height}`;
  // The compositor stretches the frame; a 2D context would first draw it at full size, which without a GPU takes longer
  // than to render it.
  const context = canvas.getContext("bitmaprenderer");
  let newest = -1;
  let told = -Infinity;
  let drawn = { at: -Infinity, count: 0, rate: 0 };

  const timed = () => {
    const now = performance.now();
    const apart = now - drawn.at;
    const rate = 1000 / apart;
    const smooth = drawn.rate ? drawn.rate + NEWEST * (rate - drawn.rate) : rate;
    drawn = { at: now, count: drawn.count + 1, rate: apart > PAUSE_MS ? 0 : smooth };
  };

  /** @param {Legend | null} given */
  const explain = (given) => {
    const now = JSON.stringify(given);
    if (now === explained) return;
    explained = now;
    legend.hidden = !given;
    legend.replaceChildren(...(given ? legendOf(given) : []));
  };

  /** Words change a few times a second: more nobody reads, and each time the page lays out and draws text.
   * @param {FrameHead} head */
  const tell = (head) => {
    if (!head.full && drawn.at - told < READABLE_MS) return;
    told = drawn.at;
    explain(head.legend);
    status.textContent = caption(head, drawn.rate);
    canvas.setAttribute("aria-label", `${name}: ${status.textContent}`);
  };

  /** @param {FrameHead} head @param {ImageBitmap} picture */
  const draw = (head, picture) => {
    context.transferFromImageBitmap(picture);
    timed();
    tell(head);
    const { full, number } = head;
    Object.assign(figure.dataset, { frames: drawn.count, full, number, width: head.width, height: head.height });
  };

  return {
    figure,
    canvas,
    /**
     * Decode and draw a frame, unless a newer one came first.
     *
     * @param {FrameHead} head
     * @param {DataView<ArrayBuffer>} content
     */
    async show(head, content) {
      newest = Math.max(newest, head.number);
      const picture = await createImageBitmap(new Blob([content], { type: head.media_type }));
      if (head.number === newest) draw(head, picture);
      else picture.close();
    },
    /** What is shown, at full size, as a PNG in a data URL. */
    png() {
      const copy = element("canvas", { width, height });
      copy.getContext("2d").drawImage(canvas, 0, 0, width, height);
      return copy.toDataURL("image/png");
    },
    /** Say something instead of the numbers. @param {string} words */
    say(words) {
      status.textContent = words;
    },
    /**
     * Lay a photo over the picture.
     *
     * @param {string} url
     * @param {{left: number, top: number, width: number, height: number}} place  in shares of the picture
     * @param {string} words  what the photo is
     */
    lay(url, place, words) {
      for (const [side, share] of Object.entries(place)) photo.style[side] = `${100 * share}%`;
      Object.assign(photo, { src: url, alt: words, hidden: false });
    },
    /** How much of the photo is seen, in [0, 1]. @param {number} opacity */
    blend(opacity) {
      photo.style.opacity = String(opacity);
    },
    lift() {
      photo.hidden = true;
      photo.removeAttribute("src");
    },
  };
}

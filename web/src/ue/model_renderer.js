// One face for both kinds of model that a browser draws: a baked field, marched by the graphics processor, and a light
// field's graph, run in WebAssembly.

import { texturesOfRows } from "../field/brick_textures.js";
import { FieldRenderer } from "../field/field_renderer.js";
import { StudentRenderer } from "../students/student_renderer.js";
import { cameraOf } from "../camera/pose.js";

/** @typedef {import("../camera/pose.js").View} View */
/** @typedef {import("./picture.js").Picture} Picture */

/**
 * A model that is ready to draw.
 *
 * @typedef {object} ModelRenderer
 * @property {HTMLCanvasElement} canvas - that it draws on
 * @property {number} width
 * @property {number} height
 * @property {string} runtime - in words
 * @property {(view: View, options: {scale: number}) => Promise<number>} draw - milliseconds it took
 * @property {boolean} scales - whether it draws faster with fewer pixels
 * @property {() => Picture} pixels - of what was drawn last
 * @property {() => void} close
 */

/**
 * Make a model ready to draw.
 *
 * @param {import("./limits.js").Card} card
 * @param {Uint8Array} content - rows of a baked field, else a graph; gzip'd or not
 * @param {{runtime: () => Promise<Uint8Array>, threads: number}} means - runtime: gets onnxruntime-web's
 * @returns {Promise<ModelRenderer>}
 */
export function openModel(card, content, means) {
  return card.kind === "baked_field" ? openField(card, content) : openStudent(content, means);
}

/** @returns {Promise<ModelRenderer>} */
async function openField(/** @type {import("./limits.js").Card} */ { width, height }, content) {
  const canvas = document.createElement("canvas");
  const renderer = new FieldRenderer(canvas, await texturesOfRows(content));
  return {
    canvas,
    width,
    height,
    runtime: "WebGL2",
    scales: true,
    draw: (view, { scale }) => renderer.draw(forRenderer(view, width, height), { scale }),
    pixels: () => renderer.pixels(),
    close: () => renderer.dispose(),
  };
}

/** @returns {Promise<ModelRenderer>} */
async function openStudent(content, { runtime, threads }) {
  const renderer = await StudentRenderer.open({ runtime: await runtime(), model: content, threads });
  const { width, height, threads: used } = renderer.opened;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  /** @type {Picture} */
  let last;
  return {
    canvas,
    width,
    height,
    runtime: `WebAssembly, ${used} thread${used > 1 ? "s" : ""}`,
    scales: false,
    async draw(view) {
      const begin = performance.now();
      const { pixels } = await renderer.render(forRenderer(view, width, height));
      context.putImageData(new ImageData(pixels, width, height), 0, 0);
      last = { rgba: pixels, width, height };
      return performance.now() - begin;
    },
    pixels: () => last,
    close: () => renderer.close(),
  };
}

/** The camera of a view as the renderers take it. */
function forRenderer(view, width, height) {
  const { camera_to_world, focal, centre } = cameraOf(view, width, height);
  return { cameraToWorld: camera_to_world.flat(), focal, centre, width, height };
}

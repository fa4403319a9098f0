// The textures of a baked field, as crowdnerf_lab/fields/brick_textures.py describes them, made in a worker of the rows
// that were downloaded: that takes up to a second, in which the page goes on.

import workerSource from "./rows_worker.js?bundled";

/**
 * A baked field as two 3-D textures and a few numbers.
 *
 * @typedef {object} BrickTextures
 * @property {Uint32Array} cells - one word a cell, z fastest
 * @property {number} cellsASide
 * @property {Uint8Array} bricks - RGBA bytes [depth height width 4]
 * @property {[number, number, number]} bricksShape - depth, height, width in texels
 * @property {Float32Array} units - [texels 4]; texels a vertex: 1 at SH degree 0, 4 at degree 1
 * @property {Float32Array} centre - of the box that is not contracted, metres [3]
 * @property {Float32Array} half_size - of that box, metres [3]
 * @property {Float32Array} background - colour behind everything, sRGB in [0, 1] [3]
 * @property {[number, number, number]} kind_begins - depth in texels at which bricks of 1, 2, 4 intervals begin
 * @property {number} zero_log_density - byte that stands for log density 0
 * @property {number} density_scale - per metre
 * @property {number} near - metres
 * @property {number} far - metres
 * @property {number} ratio - of a step's end to its begin
 * @property {number} refine - parts of a step that would stop all light
 * @property {number} finest - most parts of a step
 */

/**
 * The textures of a field's rows.
 *
 * @param {Uint8Array} content - a file of crowdnerf_lab/fields/baked_rows.py, gzip'd or not
 * @returns {Promise<BrickTextures & {fillMs: number}>} fillMs: milliseconds it took, without unpacking
 * @throws {Error} when it is truncated or something else
 */
export function texturesOfRows(content) {
  const address = URL.createObjectURL(new Blob([workerSource], { type: "text/javascript" }));
  const worker = new Worker(address, { type: "module" });
  const made = new Promise((resolve, reject) => {
    worker.onmessage = ({ data: { textures, problem } }) => (textures ? resolve(textures) : reject(new Error(problem)));
    worker.onerror = ({ message }) => reject(new Error(`the field's worker stopped (${message}); open it again`));
    worker.postMessage(content);
  });
  return made.finally(() => {
    worker.terminate();
    URL.revokeObjectURL(address);
  });
}

// Reads the files that crowdnerf_lab/fields/brick_textures.py writes; its docstring says what the arrays mean.

const FORMAT = "crowdnerf_lab.brick_textures/2";
const ARRAYS = { U8: Uint8Array, I8: Int8Array, F32: Float32Array };

/**
 * A baked field as two 3-D textures and a few numbers.
 *
 * @typedef {object} BrickTextures
 * @property {Uint8Array} cells - bytes of one little-endian word a cell, z fastest
 * @property {number} cellsASide
 * @property {Uint8Array} bricks - RGBA bytes [depth height width 4]
 * @property {[number, number, number]} bricksShape - depth, height, width in texels
 * @property {Float32Array} units - [texels 4]; texels a vertex: 1 at SH degree 0, 4 at degree 1
 * @property {Float32Array} centre - of the box that is not contracted, metres [3]
 * @property {Float32Array} half_size - of that box, metres [3]
 * @property {Float32Array} background - colour behind everything, sRGB in [0, 1] [3]
 * @property {number[]} kind_begins - depth in texels at which bricks of 1, 2, 4 intervals begin
 * @property {number} zero_log_density - byte that stands for log density 0
 * @property {number} density_scale - per metre
 * @property {number} near - metres
 * @property {number} far - metres
 * @property {number} ratio - of a step's end to its begin
 * @property {number} refine - parts of a step that would stop all light
 * @property {number} finest - most parts of a step
 */

/**
 * Read a file of brick textures. The arrays are views into it.
 *
 * @param {Uint8Array} content
 * @returns {BrickTextures}
 * @throws {Error} when it is truncated or something else
 */
export function readBrickTextures(content) {
  const { arrays, meta } = readArrays(content);
  if (meta.format !== FORMAT) {
    throw new Error(`the file holds ${meta.format ?? "no format"}, not ${FORMAT}; fetch brick textures`);
  }
  return {
    ...JSON.parse(meta.numbers),
    ...Object.fromEntries(Object.entries(arrays).map(([name, { values }]) => [name, values])),
    cellsASide: arrays.cells.shape[0],
    bricksShape: arrays.bricks.shape.slice(0, 3),
  };
}

/**
 * Named arrays and texts of a safetensors file: 8 bytes of length, a JSON header, then the arrays.
 *
 * @param {Uint8Array} content
 * @returns {{arrays: Record<string, {values: Uint8Array | Int8Array | Float32Array, shape: number[]}>,
 *   meta: Record<string, string>}}
 */
export function readArrays(content) {
  try {
    const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
    const begin = 8 + Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(content.subarray(8, begin)));
    const { __metadata__: meta = {}, ...entries } = header;
    const arrays = Object.entries(entries).map(([name, entry]) => [name, arrayOf(content.subarray(begin), entry)]);
    return { arrays: Object.fromEntries(arrays), meta };
  } catch (error) {
    throw new Error(`the file of ${content.length} bytes is truncated or no safetensors file: ${error.message}`);
  }
}

function arrayOf(body, { dtype, shape, data_offsets: [first, last] }) {
  const kind = ARRAYS[dtype];
  const count = shape.reduce((product, side) => product * side, 1);
  if (last > body.length || last - first !== count * kind.BYTES_PER_ELEMENT) {
    throw new Error(`an array of ${shape} ${dtype} is said to lie in bytes ${first} to ${last} of ${body.length}`);
  }
  const bytes = body.subarray(first, last);
  const aligned = bytes.byteOffset % kind.BYTES_PER_ELEMENT === 0 ? bytes : bytes.slice();
  return { values: new kind(aligned.buffer, aligned.byteOffset, count), shape };
}

// Reads the files that crowdnerf_lab/fields/baked_rows.py writes; its docstring says what the arrays mean.

import { readArrays } from "./safetensors.js";

const FORMAT = "crowdnerf_lab.baked_rows/1";

/**
 * Quantized rows of a field, and what is known of its bricks.
 *
 * @typedef {object} BakedRows
 * @property {Int8Array} values - [kept, numbers]
 * @property {Float32Array} scales - [levels, numbers]
 * @property {Int32Array} places - [levels * rows]: one more than the place among the kept rows; 0 for none
 * @property {Int32Array} chosen - [n] the occupied cells, in order, z fastest
 * @property {Uint8Array} kinds - [n] of their bricks
 * @property {Uint8Array} densities - [n]
 * @property {number[]} resolutions - of the levels
 * @property {number} rows - of a level
 * @property {number} cells - a side
 * @property {number[]} channels - of a row's numbers among a vertex's bytes
 * @property {[number, number, number]} shape - of the atlas: depth, height, width in texels
 * @property {Pick<import("./brick_textures.js").BrickTextures, "units" | "centre" | "half_size" | "background" |
 *   "kind_begins" | "zero_log_density" | "density_scale" | "near" | "far" | "ratio" | "refine" | "finest">} uniforms
 */

/**
 * Read a field's rows. Some arrays are views into the file.
 *
 * @param {Uint8Array} content
 * @returns {BakedRows}
 * @throws {Error} when it is truncated, inconsistent or something else
 */
export function readBakedRows(content) {
  const { arrays, meta } = readArrays(content);
  if (meta.format !== FORMAT) {
    throw new Error(`the file holds ${meta.format ?? "no format"}, not ${FORMAT}; fetch a field's rows`);
  }
  const { rows, resolutions, occupancy_cells: cells, channels, shape, ...numbers } = JSON.parse(meta.numbers);
  const { kept, occupied, values, scales, kinds, densities, units, centre, half_size, background } = arrays;
  const read = {
    ...{ values, scales, kinds, densities, resolutions, rows, cells, channels, shape },
    places: placesOf(kept, resolutions.length * rows),
    chosen: chosenOf(occupied, cells ** 3),
    uniforms: { ...numbers, units, centre, half_size, background },
  };
  checkConsistent(read);
  return read;
}

/** One more than the place of every kept row among the kept; 0 for the others. Bits: most significant first. */
function placesOf(bitmap, count) {
  const places = new Int32Array(count);
  let found = 0;
  for (let i = 0; i < count; i++) {
    if ((bitmap[i >> 3] << (i & 7)) & 128) places[i] = ++found;
  }
  return places;
}

/** The numbers of the bits that are set, least significant first. */
function chosenOf(bitmap, count) {
  const chosen = [];
  for (let i = 0; i < count; i++) {
    if ((bitmap[i >> 3] >> (i & 7)) & 1) chosen.push(i);
  }
  return Int32Array.from(chosen);
}

/** @param {BakedRows} read */
function checkConsistent({ values, scales, places, chosen, kinds, densities, resolutions, channels, shape, uniforms }) {
  const kept = places.reduce((most, place) => Math.max(most, place), 0);
  const numbers = channels.length;
  const said = [
    ["numbers of rows", values.length, kept * numbers],
    ["scales", scales.length, resolutions.length * numbers],
    ["kinds of bricks", kinds.length, chosen.length],
    ["densities", densities.length, chosen.length],
  ];
  for (const [what, found, expected] of said) {
    if (found !== expected) throw new Error(`the file has ${found} ${what} instead of ${expected}; fetch it again`);
  }
  const [depth, height, width] = shape;
  const counts = [0, 0, 0, 0];
  for (const kind of kinds) counts[kind]++;
  [2, 3, 5].forEach((v, k) => {
    const layers = Math.floor(((uniforms.kind_begins[k + 1] ?? depth) - uniforms.kind_begins[k]) / v);
    const room = layers * Math.floor(height / v) * Math.floor(width / ((uniforms.units.length / 4) * v));
    if (!(counts[k + 1] <= room)) {
      throw new Error(`the atlas has room for ${room} of ${counts[k + 1]} bricks of kind ${k + 1}; fetch it again`);
    }
  });
  if (counts[1] + counts[2] + counts[3] !== chosen.length) {
    throw new Error("the file has bricks of a kind that does not exist; fetch it again");
  }
}

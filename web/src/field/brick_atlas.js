// Fills the bricks of a baked field from its rows, as `fill_bricks` in crowdnerf_lab/kernels/bricks_cpu.py does: the
// same bytes, but for a step where float32 rounds the other way.

import { RowLookup } from "./row_lookup.js";
import { tellDistances } from "./empty_space.js";

/** @typedef {import("./baked_rows.js").BakedRows} BakedRows */

const KIND_SHIFT = 22;
const BYTE_SHIFT = 24;
/** Vertices a side of the bricks of each kind; kind 0 is empty. */
const VERTICES = [0, 2, 3, 5];

/**
 * The textures of a field's rows.
 *
 * @param {BakedRows} rows
 * @returns {import("./brick_textures.js").BrickTextures}
 */
export function filledTextures(rows) {
  const bricks = filledAtlas(rows);
  return { ...rows.uniforms, cells: cellWords(rows), cellsASide: rows.cells, bricks, bricksShape: rows.shape };
}

/** What every cell holds. */
function cellWords({ chosen, kinds, densities, cells }) {
  const words = new Uint32Array(cells ** 3);
  const counts = [0, 0, 0, 0];
  for (let n = 0; n < chosen.length; n++) {
    words[chosen[n]] = counts[kinds[n]]++ | (kinds[n] << KIND_SHIFT) | (densities[n] << BYTE_SHIFT);
  }
  tellDistances(words, cells);
  return words;
}

/** The atlas [depth height width 4], brick by brick. */
function filledAtlas(/** @type {BakedRows} */ rows) {
  const { chosen, kinds, channels, shape, uniforms } = rows;
  const atlas = new Uint8Array(4 * shape[0] * shape[1] * shape[2]);
  const lookup = new RowLookup(rows);
  const slots = VERTICES.map((v, kind) => v && slotsOf(v, uniforms.kind_begins[kind - 1], rows));
  const bytes = bytesOf(uniforms, channels);
  const counts = [0, 0, 0, 0];
  for (let n = 0; n < chosen.length; n++) {
    const kind = kinds[n];
    const numbers = lookup.brick(chosen[n], 1 << (kind - 1));
    writeBrick(atlas, numbers, VERTICES[kind], slots[kind], counts[kind]++, bytes);
  }
  return atlas;
}

/**
 * Where bricks of v vertices a side lie: byte of the first, bricks along a line and lines in a plane, bytes from plane
 * to plane and from line to line; and in a brick, from a vertex, the bytes of a row's numbers and those that are spare.
 */
function slotsOf(v, begin, /** @type {BakedRows} */ { shape: [, height, width], uniforms, channels }) {
  const texels = uniforms.units.length / 4;
  const place = (/** @type {number} */ channel) => 4 * v * (channel >> 2) + (channel & 3);
  const spare = Array.from(uniforms.units.keys()).filter((channel) => !channels.includes(channel));
  return {
    places: Int32Array.from(channels, place),
    spare: Int32Array.from(spare, place),
    first: 4 * begin * height * width,
    across: Math.floor(width / (texels * v)),
    down: Math.floor(height / v),
    plane: 4 * height * width,
    line: 4 * width,
    texels,
  };
}

/** How numbers become bytes: one over the unit of each, and what is added. */
function bytesOf({ units, zero_log_density }, channels) {
  return {
    perUnit: Float32Array.from(channels, (channel) => 1 / units[channel]),
    added: Float32Array.from(channels, (channel) => (channel === 3 ? zero_log_density : 128) + 0.5),
  };
}

/** Write brick number n of its kind: its numbers [v v v, channels], rounded and cut to bytes. */
function writeBrick(atlas, numbers, v, slots, n, { perUnit, added }) {
  const { across, down, plane, line, texels, places, spare } = slots;
  const corner =
    slots.first +
    v * Math.floor(n / (across * down)) * plane +
    v * (Math.floor(n / across) % down) * line +
    4 * texels * v * (n % across);
  const count = places.length;
  let from = 0;
  for (let i = 0; i < v; i++) {
    for (let j = 0; j < v; j++) {
      for (let k = 0, to = corner + i * plane + j * line; k < v; k++, to += 4) {
        for (let c = 0; c < count; c++, from++) {
          const code = numbers[from] * perUnit[c] + added[c];
          atlas[to + places[c]] = code < 0 ? 0 : code > 255 ? 255 : code;
        }
        for (let c = 0; c < spare.length; c++) atlas[to + spare[c]] = 128;
      }
    }
  }
}

// The rows of a baked field at the vertices of a brick, as `fill_brick` in crowdnerf_lab/kernels/bricks_cpu.py finds
// them.

/** Vertices of the largest brick. */
const WIDEST = 5 ** 3;
const REACHES = [1, 2, 4];
/** Of the hash of a corner's y and z; x is taken as it is (Mueller et al. 2022). */
const PRIME_Y = 2654435761;
const PRIME_Z = 805459861;

/**
 * One level, looked up at so many vertices a cell.
 *
 * @typedef {object} Level
 * @property {number} first - place of its rows in the table
 * @property {number} side - corners a side where every corner has a row of its own; 0 where they are hashed
 * @property {Int32Array} corner - [vertices a side]: at or below a vertex
 * @property {Float32Array} fraction - [vertices a side]: of the way to the next corner
 * @property {Float32Array} scales - [numbers]
 */

/** Looks up bricks, one after another, in memory of its own. */
export class RowLookup {
  #values;
  #places;
  #cells;
  #mask;
  #numbers;
  /** @type {Level[][]} levels that are looked up at whole, half and quarter cells */
  #levels;
  #buffers;
  #between;

  /** @param {import("./baked_rows.js").BakedRows} rows */
  constructor(rows) {
    this.#values = rows.values;
    this.#places = rows.places;
    this.#cells = rows.cells;
    this.#mask = rows.rows - 1;
    this.#numbers = rows.channels.length;
    this.#levels = REACHES.map((reach) => levelsAt(reach, rows));
    const room = () => new Float32Array(WIDEST * this.#numbers);
    this.#buffers = [room(), room()];
    this.#between = [room(), room()];
  }

  /**
   * The field's numbers at the vertices of a cell's brick.
   *
   * @param {number} cell
   * @param {number} intervals - a side: 1, 2 or 4
   * @returns {Float32Array} [vertices, numbers], until the next brick
   */
  brick(cell, intervals) {
    const cells = this.#cells;
    const [x, y, z] = [Math.floor(cell / (cells * cells)), Math.floor(cell / cells) % cells, cell % cells];
    let [now, next] = this.#buffers;
    now.fill(0, 0, 8 * this.#numbers);
    for (let step = 0, reach = 1; ; step++, reach *= 2) {
      for (const level of this.#levels[step]) this.#addLevel(now, level, reach, x * reach, y * reach, z * reach);
      if (reach === intervals) return now;
      this.#halve(now, next, reach + 1);
      [now, next] = [next, now];
    }
  }

  /** Add a level's interpolated rows. A vertex that coincides with its grid along an axis reads no corner beyond. */
  #addLevel(buffer, { first, side, corner, fraction, scales }, reach, x, y, z) {
    const places = this.#places;
    const mask = this.#mask;
    for (let i = x, to = 0; i <= x + reach; i++) {
      const fx = fraction[i];
      for (let j = y; j <= y + reach; j++) {
        const fy = fraction[j];
        for (let k = z; k <= z + reach; k++, to += scales.length) {
          const fz = fraction[k];
          if (fx === 0 && fy === 0 && fz === 0) { // most of them: the finest level's rows stand at vertices
            const place = places[first + rowOf(corner[i], corner[j], corner[k], side, mask)];
            if (place) this.#addRow(buffer, to, place - 1, 1, scales);
            continue;
          }
          for (let a = 0, wx = 1 - fx; a < (fx ? 2 : 1); a++, wx = fx) {
            const cx = corner[i] + a;
            for (let b = 0, wy = wx * (1 - fy); b < (fy ? 2 : 1); b++, wy = wx * fy) {
              const cy = corner[j] + b;
              for (let c = 0, weight = wy * (1 - fz); c < (fz ? 2 : 1); c++, weight = wy * fz) {
                const place = places[first + rowOf(cx, cy, corner[k] + c, side, mask)];
                if (place) this.#addRow(buffer, to, place - 1, weight, scales);
              }
            }
          }
        }
      }
    }
  }

  #addRow(buffer, to, place, weight, scales) {
    const values = this.#values;
    for (let n = 0, from = place * scales.length; n < scales.length; n++) {
      buffer[to + n] += weight * scales[n] * values[from + n];
    }
  }

  /** Interpolate a brick of v vertices a side at twice as many intervals: along z, then y, then x. */
  #halve(from, to, v) {
    const [along, flat] = this.#between;
    const wide = 2 * v - 1;
    halveAlong(from, along, v * v, v, this.#numbers);
    halveAlong(along, flat, v, v, wide * this.#numbers);
    halveAlong(flat, to, 1, v, wide * wide * this.#numbers);
  }
}

/** Row of a corner in its level's part of the table. */
function rowOf(x, y, z, side, mask) {
  return side ? (x * side + y) * side + z : (x ^ Math.imul(y, PRIME_Y) ^ Math.imul(z, PRIME_Z)) & mask;
}

/** Levels that are looked up at this many intervals a cell. */
function levelsAt(reach, /** @type {import("./baked_rows.js").BakedRows} */ { resolutions, rows, cells, scales }) {
  const numbers = scales.length / resolutions.length;
  const coarser = reach === 1 ? 0 : (reach / 2) * cells;
  return resolutions.flatMap((resolution, level) => {
    if (resolution <= coarser || (resolution > reach * cells && reach !== 4)) return [];
    const parts = reach * cells;
    const vertices = Array.from({ length: parts + 1 }, (_, vertex) => vertex * resolution);
    return {
      first: level * rows,
      side: (resolution + 1) ** 3 <= rows ? resolution + 1 : 0,
      corner: Int32Array.from(vertices, (place) => Math.floor(place / parts)),
      fraction: Float32Array.from(vertices, (place) => (place % parts) / parts),
      scales: scales.slice(level * numbers, (level + 1) * numbers),
    };
  });
}

/** Put the mean of every two neighbours between them: from [outer, count, inner] to [outer, 2 count - 1, inner]. */
function halveAlong(from, to, outer, count, inner) {
  for (let o = 0, at = 0, end = 0; o < outer; o++, at += inner) {
    for (let i = 1; i < count; i++, at += inner) {
      for (let n = 0; n < inner; n++) {
        to[end + n] = from[at + n];
        to[end + inner + n] = 0.5 * (from[at + n] + from[at + inner + n]);
      }
      end += 2 * inner;
    }
    for (let n = 0; n < inner; n++) to[end + n] = from[at + n];
    end += inner;
  }
}

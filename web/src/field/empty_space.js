// How far it is from empty cells to occupied ones, as `distances` in crowdnerf_lab/kernels/bricks_cpu.py says.

const KIND_BITS = 3 << 22;
const BYTE_SHIFT = 24;
/** Largest distance that a cell can tell, in cells. */
const FARTHEST = 255;

/**
 * Write into the words of empty cells their Chebyshev distance to the nearest occupied cell, at most FARTHEST, in two
 * sweeps over the 26 neighbours (exact for this metric: Rosenfeld and Pfaltz 1966).
 *
 * @param {Uint32Array} words - [cells^3], z fastest; 0 where empty
 * @param {number} cells - a side
 */
export function tellDistances(words, cells) {
  const side = cells + 2; // a border of far cells spares the sweeps all questions about the edge
  const distance = new Uint8Array(side ** 3).fill(FARTHEST);
  const inside = (x, y) => ((x + 1) * side + y + 1) * side + 1;
  for (let x = 0, i = 0; x < cells; x++) {
    for (let y = 0; y < cells; y++) {
      for (let z = 0, at = inside(x, y); z < cells; z++, i++, at++) if (words[i] & KIND_BITS) distance[at] = 0;
    }
  }
  const before = offsetsBefore(side);
  for (let x = 0; x < cells; x++) {
    for (let y = 0; y < cells; y++) sweep(distance, inside(x, y), 1, cells, before);
  }
  const after = before.map((offset) => -offset);
  for (let x = cells - 1; x >= 0; x--) {
    for (let y = cells - 1; y >= 0; y--) sweep(distance, inside(x, y) + cells - 1, -1, cells, after);
  }
  for (let x = 0, i = 0; x < cells; x++) {
    for (let y = 0; y < cells; y++) {
      for (let z = 0, at = inside(x, y); z < cells; z++, i++, at++) {
        if (distance[at]) words[i] = distance[at] << BYTE_SHIFT;
      }
    }
  }
}

/** Offsets of the 13 neighbours that come before a cell. */
function offsetsBefore(side) {
  const offsets = [];
  for (let dx = -1; dx <= 0; dx++) {
    for (let dy = -1; dy <= 1; dy++) {
      for (let dz = -1; dz <= 1; dz++) {
        const offset = (dx * side + dy) * side + dz;
        if (offset < 0) offsets.push(offset);
      }
    }
  }
  return Int32Array.from(offsets);
}

/** Carry distances along one line of cells. */
function sweep(distance, first, step, count, neighbours) {
  for (let n = 0, at = first; n < count; n++, at += step) {
    let nearest = distance[at];
    for (let k = 0; k < 13 && nearest > 1; k++) {
      const by = distance[at + neighbours[k]] + 1;
      if (by < nearest) nearest = by;
    }
    distance[at] = nearest;
  }
}

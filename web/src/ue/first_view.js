// Where a viewer begins: at a model's own probe view, of which the artefact carries the network's picture.

import { angleOf, axesOf, dot, viewOf } from "../camera/pose.js";

/** @typedef {import("../camera/pose.js").View} View */

/** Metres to the pivot where the probes do not tell, and the nearest and farthest that are believed. */
const USUAL_DISTANCE = 8;
const DISTANCES = { nearest: 1, farthest: 40 };

/**
 * The view of a card's first probe. Its pivot lies where the probes' optical axes come nearest to each other.
 *
 * @param {import("./limits.js").Card} card
 * @returns {View}
 */
export function firstView({ probes, height }) {
  const [first, second] = probes.map(({ camera_to_world, focal }) =>
    viewOf(camera_to_world.flat(), { distance: USUAL_DISTANCE, fieldOfView: angleOf(focal[1], height) }),
  );
  return second ? { ...first, distance: distanceToPivot(first, second) } : first;
}

/** Along the first view's axis to where it is nearest to the second's, metres (Ericson 2004, 5.1.8). */
function distanceToPivot(first, second) {
  const [a, b] = [axesOf(first).forward, axesOf(second).forward];
  const between = first.position.map((value, axis) => value - second.position[axis]);
  const along = dot(a, b);
  const parallel = 1 - along ** 2;
  const distance = parallel < 1e-3 ? USUAL_DISTANCE : (along * dot(b, between) - dot(a, between)) / parallel;
  return Math.min(DISTANCES.farthest, Math.max(DISTANCES.nearest, distance));
}

/** How a view moves: pure functions from a view to the next. Metres and radians; see `pose.js` for the letters. */

import { axesOf, moved, pivotOf } from "./pose.js";

/** @typedef {import("./pose.js").View} View */
/** @typedef {import("./pose.js").Vector} Vector */

const STEEPEST = (89 * Math.PI) / 180;
/** Nearer than this to its pivot (m), a camera that goes on pushes the pivot ahead of it, and so is never stuck. */
const NEAREST = 0.2;
const FIELDS_OF_VIEW = { narrowest: 0.1, widest: 2.4 };
/** What is left of a photo's roll after each motion: the horizon comes level while the reader moves, not at once. */
const ROLL_KEPT = 0.85;

const within = (/** @type {number} */ value, /** @type {number} */ low, /** @type {number} */ high) =>
  Math.min(high, Math.max(low, value));

const settled = (/** @type {number} */ roll) => (Math.abs(roll) < 1e-3 ? 0 : roll * ROLL_KEPT);

/** Turn the gaze where the reader stands. @type {(view: View, left: number, up: number) => View} */
export const looked = (view, left, up) => ({
  ...view,
  yaw: view.yaw + left,
  pitch: within(view.pitch + up, -STEEPEST, STEEPEST),
  roll: settled(view.roll),
});

/** Go round the pivot, the gaze kept on it. @type {(view: View, left: number, up: number) => View} */
export function orbited(view, left, up) {
  const turned = looked(view, left, up);
  return { ...turned, position: moved(pivotOf(view), axesOf(turned).forward, -view.distance) };
}

/** Slide in the image's plane, m. @type {(view: View, right: number, down: number) => View} */
export function panned(view, right, down) {
  const axes = axesOf(view);
  return { ...view, position: moved(moved(view.position, axes.right, right), axes.down, down) };
}

/** Come nearer to the pivot (`factor` below 1) or go away from it. @type {(view: View, factor: number) => View} */
export function dollied(view, factor) {
  const distance = Math.max(NEAREST, view.distance * factor);
  const forwards = view.distance - Math.min(view.distance * factor, distance);
  return { ...view, distance, position: moved(view.position, axesOf(view).forward, forwards) };
}

/**
 * Walk on level ground, wherever one looks; `up` lifts off it.
 *
 * @param {View} view
 * @param {{right?: number, forward?: number, up?: number}} metres
 * @returns {View}
 */
export function walked(view, { right = 0, forward = 0, up = 0 }) {
  const ahead = /** @type {Vector} */ ([Math.cos(view.yaw), Math.sin(view.yaw), 0]);
  const aside = /** @type {Vector} */ ([Math.sin(view.yaw), -Math.cos(view.yaw), 0]);
  const position = moved(moved(moved(view.position, ahead, forward), aside, right), [0, 0, 1], up);
  return { ...view, position, roll: settled(view.roll) };
}

/** A longer (`factor` below 1) or shorter lens. @type {(view: View, factor: number) => View} */
export const zoomed = (view, factor) => ({
  ...view,
  fieldOfView: within(view.fieldOfView * factor, FIELDS_OF_VIEW.narrowest, FIELDS_OF_VIEW.widest),
});

/** Bring the horizon level. @type {(view: View) => View} */
export const levelled = (view) => ({ ...view, roll: 0 });

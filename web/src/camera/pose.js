/**
 * Where a reader stands and looks, and the pinhole camera that is there.
 *
 * Conventions of the package: metres east, north and up; OpenCV axes of a camera (x right, y down, z forward);
 * camera-to-world; angles in radians. A pose goes over the wire as the 12 numbers of its 3 x 4 matrix, row by row.
 */

/** @typedef {[number, number, number]} Vector  east, north, up */

/**
 * @typedef {object} View
 * @property {Vector} position  centre of the camera, m
 * @property {number} yaw  heading of the gaze, counterclockwise from east
 * @property {number} pitch  the gaze above the horizon, in [-PI/2, PI/2]
 * @property {number} roll  the camera's right side below the horizon
 * @property {number} distance  to the pivot on the optical axis that orbiting turns about, m
 * @property {number} fieldOfView  angle seen across the image's height, in (0, PI)
 */

/**
 * @typedef {object} Axes  Unit vectors of a camera, in the world.
 * @property {Vector} right
 * @property {Vector} down
 * @property {Vector} forward
 */

/** @type {(a: Vector, b: Vector) => number} */
export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** @type {(a: Vector, b: Vector) => Vector} */
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];

/** `from + length * along`. @type {(from: Vector, along: Vector, length: number) => Vector} */
export const moved = (from, along, length) => [
  from[0] + length * along[0],
  from[1] + length * along[1],
  from[2] + length * along[2],
];

/** Axes of a camera that keeps the horizon level. @type {(yaw: number, pitch: number) => Axes} */
function levelAxes(yaw, pitch) {
  const forward = /** @type {Vector} */ ([
    Math.cos(pitch) * Math.cos(yaw),
    Math.cos(pitch) * Math.sin(yaw),
    Math.sin(pitch),
  ]);
  const right = /** @type {Vector} */ ([Math.sin(yaw), -Math.cos(yaw), 0]);
  return { right, down: cross(forward, right), forward };
}

/** @type {(view: View) => Axes} */
export function axesOf(view) {
  const { right, down, forward } = levelAxes(view.yaw, view.pitch);
  const [c, s] = [Math.cos(view.roll), Math.sin(view.roll)];
  const turned = (/** @type {Vector} */ a, /** @type {Vector} */ b, /** @type {number} */ sign) =>
    /** @type {Vector} */ (a.map((value, i) => c * value + sign * s * b[i]));
  return { right: turned(right, down, 1), down: turned(down, right, -1), forward };
}

/** The point that orbiting turns about. @type {(view: View) => Vector} */
export const pivotOf = (view) => moved(view.position, axesOf(view).forward, view.distance);

/** Camera-to-world [3, 4], 12 numbers row by row. @type {(view: View) => number[]} */
export function cameraToWorld(view) {
  const { right, down, forward } = axesOf(view);
  return [0, 1, 2].flatMap((row) => [right[row], down[row], forward[row], view.position[row]]);
}

/**
 * The view of a camera; inverse of `cameraToWorld`.
 *
 * @param {number[]} pose  camera-to-world [3, 4], 12 numbers row by row
 * @param {{distance: number, fieldOfView: number}} lens  what a pose does not say
 * @returns {View}
 */
export function viewOf(pose, { distance, fieldOfView }) {
  if (pose.length !== 12 || !pose.every(Number.isFinite)) {
    throw new RangeError(`a pose is 12 finite numbers, 3 x 4 row by row; got ${pose.length}: ${pose}`);
  }
  const column = (/** @type {number} */ i) => /** @type {Vector} */ ([pose[i], pose[4 + i], pose[8 + i]]);
  const [right, forward, position] = [column(0), column(2), column(3)];
  const pitch = Math.asin(Math.max(-1, Math.min(1, forward[2])));
  const upright = Math.hypot(forward[0], forward[1]) > 1e-6;
  // Straight up or down, heading and roll turn about the same axis: call all of it heading.
  const yaw = upright ? Math.atan2(forward[1], forward[0]) : Math.atan2(right[0], -right[1]);
  const level = levelAxes(yaw, pitch);
  const roll = upright ? Math.atan2(dot(right, level.down), dot(right, level.right)) : 0;
  return { position, yaw, pitch, roll, distance, fieldOfView };
}

/** Focal length in pixels of an image so high. @type {(view: View, height: number) => number} */
export const focalOf = (view, height) => height / (2 * Math.tan(view.fieldOfView / 2));

/** The angle that a lens of `focal` pixels sees over `length` pixels. @type {(focal: number, length: number) => number} */
export const angleOf = (focal, length) => 2 * Math.atan(length / (2 * focal));

/**
 * The ideal camera of a view, as a document that the package's `pinhole` understands.
 *
 * @param {View} view
 * @param {number} width  pixels
 * @param {number} height  pixels
 */
export function cameraOf(view, width, height) {
  const pose = cameraToWorld(view);
  const focal = focalOf(view, height);
  return {
    camera_to_world: [pose.slice(0, 4), pose.slice(4, 8), pose.slice(8, 12)],
    focal: [focal, focal],
    centre: [width / 2, height / 2],
    width,
    height,
  };
}

/** The signed angle from `a` to `b`, the short way round. @type {(a: number, b: number) => number} */
const turn = (a, b) => Math.atan2(Math.sin(b - a), Math.cos(b - a));

/** On the way from one view to another, at `t` in [0, 1]. @type {(from: View, to: View, t: number) => View} */
export function between(from, to, t) {
  const mix = (/** @type {number} */ a, /** @type {number} */ b) => a + t * (b - a);
  return {
    position: /** @type {Vector} */ (from.position.map((value, i) => mix(value, to.position[i]))),
    yaw: from.yaw + t * turn(from.yaw, to.yaw),
    pitch: mix(from.pitch, to.pitch),
    roll: from.roll + t * turn(from.roll, to.roll),
    distance: Math.exp(mix(Math.log(from.distance), Math.log(to.distance))),
    fieldOfView: mix(from.fieldOfView, to.fieldOfView),
  };
}

/** Camera controls: an element's mouse, touch and keyboard steer one view. */

import { listenToGestures } from "./gestures.js";
import { listenToKeys } from "./keyboard.js";
import { dollied, levelled, looked, orbited, panned, walked, zoomed } from "./motion.js";
import { between, focalOf } from "./pose.js";

/** @typedef {import("./pose.js").View} View */
/** @typedef {import("./keyboard.js").Course} Course */
/** @typedef {"orbit" | "look"} Steering  whether a drag goes round the pivot or turns the head */

/**
 * @typedef {object} ControlSettings
 * @property {View} view  where to begin, and where Home leads
 * @property {(view: View, steered: boolean) => void} onChange  the view moved: the reader steered it, or it is in flight
 * @property {() => void} [onRest]  the view has stood still for `REST_MS`
 * @property {(steering: Steering) => void} [onSteering]  the reader changed what a drag does
 * @property {() => number} [imageHeight]  height of the picture, CSS pixels; by default the element's
 * @property {number} [pace]  walking speed, m/s
 */

/** Milliseconds without motion after which the reader has come to rest. */
const REST_MS = 120;
/** Radians a second while an arrow is held. */
const TURNING = 1.2;
/** Natural logarithm of distance, or of the field of view, a second while its key is held. */
const SCALING = 1.2;
/** A held Shift + arrow pans so many distances to the pivot a second. */
const PANNING = 0.6;
/** A flight to another view takes so long, ms. */
const FLIGHT_MS = 450;

/** Slow at both ends. @type {(t: number) => number} */
const eased = (t) => t * t * (3 - 2 * t);

/**
 * Steer a view with an element. The element takes the focus; give it a label and a visible focus ring.
 *
 * @param {HTMLElement} element
 * @param {ControlSettings} settings
 */
export function createCameraControls(element, settings) {
  const { onChange, onRest = () => {}, onSteering = () => {}, pace = 2 } = settings;
  const imageHeight = settings.imageHeight ?? (() => element.clientHeight);
  let view = settings.view;
  let homeView = settings.view;
  /** @type {Steering} */
  let steering = "orbit";
  let resting = 0;
  let flight = 0;

  const restSoon = () => {
    clearTimeout(resting);
    resting = setTimeout(onRest, REST_MS);
  };

  /** @param {View} next @param {boolean} steered */
  const change = (next, steered) => {
    view = next;
    onChange(view, steered);
    restSoon();
  };

  /** @param {View} next */
  const steer = (next) => {
    cancelAnimationFrame(flight);
    change(next, true);
  };

  const turned = (/** @type {number} */ left, /** @type {number} */ up) =>
    steering === "orbit" ? orbited(view, left, up) : looked(view, left, up);

  /** Radians that a pixel in the middle of the picture covers. */
  const pixelAngle = () => 1 / focalOf(view, imageHeight());

  /** Where held keys lead in so many seconds. @type {(course: Course, seconds: number) => View} */
  const followed = ({ turnLeft, turnUp, panRight, panDown, right, forward, up, away, wider }, seconds) => {
    const [slide, walk] = [PANNING * view.distance * seconds, pace * seconds];
    let next = view;
    if (turnLeft || turnUp) next = turned(turnLeft * TURNING * seconds, turnUp * TURNING * seconds);
    if (panRight || panDown) next = panned(next, panRight * slide, panDown * slide);
    if (right || forward || up) next = walked(next, { right: right * walk, forward: forward * walk, up: up * walk });
    if (away) next = dollied(next, Math.exp(away * SCALING * seconds));
    return wider ? zoomed(next, Math.exp(wider * SCALING * seconds)) : next;
  };

  const setSteering = (/** @type {Steering} */ next) => {
    steering = next;
    onSteering(steering);
  };

  /** @param {View} target */
  const flyTo = (target) => {
    cancelAnimationFrame(flight);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return change(target, false);
    const [from, begun] = [view, performance.now()];
    const step = (/** @type {number} */ now) => {
      const t = Math.min(1, (now - begun) / FLIGHT_MS);
      change(t < 1 ? between(from, target, eased(Math.max(0, t))) : target, false);
      if (t < 1) flight = requestAnimationFrame(step);
    };
    flight = requestAnimationFrame(step);
  };

  const goHome = () => {
    steer(view);
    flyTo(homeView);
  };

  const stopGestures = listenToGestures(element, {
    // In orbit a drag of the picture's height goes half round; looking around, the scene sticks to the finger.
    onTurn: (right, down) => {
      const angle = steering === "orbit" ? Math.PI / imageHeight() : pixelAngle();
      const sign = steering === "orbit" ? -1 : 1;
      steer(turned(sign * right * angle, sign * down * angle));
    },
    onPan: (right, down) => {
      const metres = pixelAngle() * view.distance;
      steer(panned(view, -right * metres, -down * metres));
    },
    onDolly: (factor) => steer(dollied(view, factor)),
    onRelease: restSoon,
  });

  const stopKeys = listenToKeys(element, {
    onCourse: (course, seconds) => steer(followed(course, seconds)),
    onPress: {
      KeyO: () => setSteering(steering === "orbit" ? "look" : "orbit"),
      KeyL: () => steer(levelled(view)),
      Home: goHome,
    },
    onRelease: restSoon,
  });

  return {
    /** @returns {View} */
    get view() {
      return view;
    },
    /** @returns {Steering} */
    get steering() {
      return steering;
    },
    /** Put the camera somewhere at once, as another page or program asks; tells nobody. @param {View} next */
    place(next) {
      cancelAnimationFrame(flight);
      view = next;
    },
    /** What Home leads to from now on. @param {View} next */
    setHome(next) {
      homeView = next;
    },
    home: goHome,
    flyTo,
    setSteering,
    dispose() {
      cancelAnimationFrame(flight);
      clearTimeout(resting);
      stopGestures();
      stopKeys();
    },
  };
}

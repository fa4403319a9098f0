/** Steering with the keyboard: which key does what, and motion for as long as keys are held. */

/**
 * @typedef {object} Course  What held keys ask for, each in [-1, 1].
 * @property {number} turnLeft
 * @property {number} turnUp
 * @property {number} panRight
 * @property {number} panDown
 * @property {number} right
 * @property {number} forward
 * @property {number} up
 * @property {number} away
 * @property {number} wider
 */

/** Seconds of motion that the shortest tap on a key is worth. */
const TAP = 0.06;
/** Longest step of time that one picture's motion may cover, s: a page that stood still must not leap. */
const LONGEST_STEP = 0.1;

/** What a held key adds to the course. `code` says where a key lies, whatever the alphabet on it.
 * @type {Record<string, Partial<Course>>} */
const HELD = {
  ArrowLeft: { turnLeft: 1 },
  ArrowRight: { turnLeft: -1 },
  ArrowUp: { turnUp: 1 },
  ArrowDown: { turnUp: -1 },
  KeyW: { forward: 1 },
  KeyS: { forward: -1 },
  KeyA: { right: -1 },
  KeyD: { right: 1 },
  KeyE: { up: 1 },
  KeyQ: { up: -1 },
  Equal: { away: -1 },
  NumpadAdd: { away: -1 },
  Minus: { away: 1 },
  NumpadSubtract: { away: 1 },
  BracketLeft: { wider: 1 },
  BracketRight: { wider: -1 },
};
/** With Shift, arrows slide the view instead. @type {Record<string, Partial<Course>>} */
const HELD_WITH_SHIFT = {
  ArrowLeft: { panRight: -1 },
  ArrowRight: { panRight: 1 },
  ArrowUp: { panDown: -1 },
  ArrowDown: { panDown: 1 },
};

/** What the keys do, for a reader. @type {readonly [keys: string, effect: string][]} */
export const KEYS = [
  ["← → ↑ ↓", "orbit, or look around"],
  ["Shift + arrows", "pan"],
  ["W A S D", "walk"],
  ["Q E", "down, up"],
  ["+ −", "nearer, farther"],
  ["[ ]", "wider, longer lens"],
  ["O", "orbit or look around"],
  ["L", "level the horizon"],
  ["Home", "first view"],
];

/**
 * @typedef {object} KeyHandlers
 * @property {(course: Course, seconds: number) => void} onCourse  held keys ask for motion over so many seconds
 * @property {Record<string, () => void>} onPress  what a key, by its `code`, does once
 * @property {() => void} onRelease  no key is held any more
 */

/** @type {(held: Iterable<string>, shift: boolean) => Course} */
function courseOf(held, shift) {
  const course = { turnLeft: 0, turnUp: 0, panRight: 0, panDown: 0, right: 0, forward: 0, up: 0, away: 0, wider: 0 };
  for (const code of held) {
    const asked = (shift && HELD_WITH_SHIFT[code]) || HELD[code];
    for (const [name, value] of Object.entries(asked)) course[/** @type {keyof Course} */ (name)] += value;
  }
  return course;
}

/**
 * Listen to an element's keys until the returned function is called.
 *
 * @param {HTMLElement} element  takes the focus
 * @param {KeyHandlers} handlers
 * @returns {() => void}
 */
export function listenToKeys(element, handlers) {
  /** @type {Set<string>} */
  const held = new Set();
  let shift = false;
  let last = 0;
  let frame = 0;

  /** @param {number} now  ms */
  const step = (now) => {
    const seconds = Math.min(LONGEST_STEP, (now - last) / 1000);
    last = now;
    if (seconds > 0) handlers.onCourse(courseOf(held, shift), seconds);
    frame = requestAnimationFrame(step);
  };

  /** @param {KeyboardEvent} event */
  const onDown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== element) return;
    const press = handlers.onPress[event.code];
    if (!press && !(event.code in HELD)) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.repeat) return;
    if (press) return press();
    shift = event.shiftKey;
    held.add(event.code);
    handlers.onCourse(courseOf([event.code], shift), TAP);
    if (held.size > 1) return;
    last = performance.now();
    frame = requestAnimationFrame(step);
  };

  const stop = () => {
    cancelAnimationFrame(frame);
    if (held.size === 0) return;
    held.clear();
    handlers.onRelease();
  };

  /** @param {KeyboardEvent} event */
  const onUp = (event) => {
    if (event.key === "Shift") shift = false;
    if (held.has(event.code) && held.size === 1) stop();
    else held.delete(event.code);
  };

  const listening = new AbortController();
  const { signal } = listening;
  element.addEventListener("keydown", onDown, { signal });
  element.addEventListener("keyup", onUp, { signal });
  element.addEventListener("blur", stop, { signal });
  return () => {
    stop();
    listening.abort();
  };
}

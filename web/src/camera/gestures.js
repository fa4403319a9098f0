/** Mouse, pen and touch: what pointers do on an element, told as drags, pans and dollies. */

/**
 * @typedef {object} GestureHandlers  What happened, in CSS pixels.
 * @property {(right: number, down: number) => void} onTurn  one finger, or the first mouse button, was dragged
 * @property {(right: number, down: number) => void} onPan  two fingers, another button, or with Shift
 * @property {(factor: number) => void} onDolly  pinch or wheel; below 1 to come nearer
 * @property {() => void} onRelease  the last finger or button was lifted
 */

/** A wheel's unit in pixels: 0 pixels, 1 lines, 2 pages (WheelEvent.deltaMode). */
const PIXELS_OF_WHEEL = [1, 16, 400];
/** How much nearer one pixel of the wheel brings, as a natural logarithm: a notch of 100 pixels by about a sixth. */
const DOLLY_OF_WHEEL = 0.0018;
/** A trackpad's pinch comes as a wheel with Ctrl, in much smaller steps. */
const DOLLY_OF_PINCH = 0.01;

/** @type {(a: {x: number, y: number}, b: {x: number, y: number}) => {x: number, y: number, apart: number}} */
const pairOf = (a, b) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) });

/**
 * Listen to an element's pointers until the returned function is called.
 *
 * The wheel dollies only while the element has the focus: a page must scroll past it otherwise.
 *
 * @param {HTMLElement} element
 * @param {GestureHandlers} handlers
 * @returns {() => void}
 */
export function listenToGestures(element, handlers) {
  /** @type {Map<number, {x: number, y: number}>} */
  const pointers = new Map();
  const pair = () => {
    const [a, b] = [...pointers.values()];
    return pairOf(a, b);
  };

  /** @param {PointerEvent} event */
  const onDown = (event) => {
    element.focus({ preventScroll: true });
    element.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    event.preventDefault();
  };

  /** @param {PointerEvent} event */
  const onMove = (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const now = { x: event.clientX, y: event.clientY };
    if (pointers.size === 2) {
      const before = pair();
      pointers.set(event.pointerId, now);
      const after = pair();
      handlers.onPan(after.x - before.x, after.y - before.y);
      if (after.apart > 0 && before.apart > 0) handlers.onDolly(before.apart / after.apart);
      return;
    }
    pointers.set(event.pointerId, now);
    const pans = event.shiftKey || (event.buttons & 6) !== 0;
    (pans ? handlers.onPan : handlers.onTurn)(now.x - last.x, now.y - last.y);
  };

  /** @param {PointerEvent} event */
  const onUp = (event) => {
    if (pointers.delete(event.pointerId) && pointers.size === 0) handlers.onRelease();
  };

  /** @param {WheelEvent} event */
  const onWheel = (event) => {
    if (!element.matches(":focus")) return;
    event.preventDefault();
    const pixels = event.deltaY * PIXELS_OF_WHEEL[event.deltaMode];
    handlers.onDolly(Math.exp(pixels * (event.ctrlKey ? DOLLY_OF_PINCH : DOLLY_OF_WHEEL)));
    handlers.onRelease();
  };

  const noMenu = (/** @type {Event} */ event) => event.preventDefault();
  const listening = new AbortController();
  const { signal } = listening;
  element.addEventListener("pointerdown", onDown, { signal });
  element.addEventListener("pointermove", onMove, { signal });
  element.addEventListener("pointerup", onUp, { signal });
  element.addEventListener("pointercancel", onUp, { signal });
  element.addEventListener("wheel", onWheel, { signal, passive: false });
  element.addEventListener("contextmenu", noMenu, { signal });
  element.style.touchAction = "none";
  return () => listening.abort();
}

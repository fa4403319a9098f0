// A battery that empties while one watches: hours of an event in a minute.

/** What the screen, the radio and the rest of a phone draw beside rendering, W. An assumption, as is the capacity. */
const IDLE_W = 1;
/** Of a phone's battery, Wh: about 3,100 mAh at 3.85 V, of which this is what an evening may take. */
export const CAPACITY_WH = 12;
/** How many seconds of the battery's life pass in one, while it is emptied. */
export const HURRY = 600;

/** What is left in this UE's battery. Frames are as costly as the card of their model estimates. */
export class Battery {
  /** Watt hours. */
  left = CAPACITY_WH;
  /** Whether it empties. */
  draining = false;
  /** Millijoules that rendering has taken so far, as estimated. */
  spentMj = 0;
  #since = 0;

  /** In [0, 1]. */
  get charge() {
    return this.left / CAPACITY_WH;
  }

  set charge(share) {
    this.left = CAPACITY_WH * Math.min(1, Math.max(0, share));
  }

  /** A frame was drawn on this device. @param {number} millijoules */
  drew(millijoules) {
    this.spentMj += millijoules;
    if (this.draining) this.#take((HURRY * millijoules) / 3.6e6);
  }

  /** Time went on. @param {number} now - ms */
  tick(now) {
    if (this.draining) this.#take((HURRY * IDLE_W * Math.min(now - this.#since, 1000)) / 3.6e6);
    this.#since = now;
  }

  #take(wattHours) {
    this.left = Math.max(0, this.left - wattHours);
  }
}

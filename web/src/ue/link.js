// The link between this UE and the network, simulated: every transfer arrives as late as it would over a profile of
// crowdnerf_lab/network/links/link_profiles.py. As transfers.py has it for a connection that is open already: segments
// share the rate, each is late by delay and jitter, and what is lost comes a round trip later.

/**
 * @typedef {object} LinkProfile
 * @property {string} name
 * @property {string} title
 * @property {number} down_mbit_s
 * @property {number} up_mbit_s
 * @property {number} rtt_ms
 * @property {number} jitter_ms
 * @property {number} loss - share of packets
 * @property {number} burst - mean number lost in a row
 */

/** @typedef {"up" | "down"} Direction */

/** Payload of a TCP segment, bytes. */
const SEGMENT = 1460;

/**
 * Milliseconds from the first byte's leaving to the last one's arrival, over an open connection on an idle link.
 *
 * @param {LinkProfile} profile
 * @param {number} bytes
 * @param {{direction?: Direction, random?: () => number}} [options] - random: even in [0, 1)
 */
export function transferMs(profile, bytes, { direction = "down", random = Math.random } = {}) {
  const rate = (direction === "down" ? profile.down_mbit_s : profile.up_mbit_s) * 125; // bytes a millisecond
  const isLost = losses(profile, random);
  let leaves = 0;
  let arrived = 0;
  for (let left = Math.max(1, bytes); left > 0; left -= SEGMENT) {
    const size = Math.min(left, SEGMENT);
    leaves += size / rate;
    let arrival = leaves + profile.rtt_ms / 2 + profile.jitter_ms * random();
    for (let lost = isLost(); lost; lost = random() < profile.loss) {
      leaves += size / rate;
      arrival += profile.rtt_ms;
    }
    arrived = Math.max(arrived, arrival);
  }
  return arrived;
}

/** Which packets get lost: two states as in Gilbert (1960), each loss in a row of `burst` on average. */
function losses({ loss, burst }, random) {
  let bad = random() < loss;
  const toGood = 1 / burst;
  const toBad = loss === 0 ? 0 : (toGood * loss) / (1 - loss);
  return () => {
    const lost = bad;
    bad = random() < (bad ? 1 - toGood : toBad);
    return lost;
  };
}

/** What this UE sends and receives, counted, and kept waiting as its link would. */
export class Link {
  /** @type {LinkProfile | null} - null: nothing is simulated */
  profile = null;
  bytes = { up: 0, down: 0 };

  /**
   * Wait for a transfer that is about to be, or was, made.
   *
   * @param {number} bytes
   * @param {Direction} direction
   * @param {(share: number) => void} [onProgress] - of the bytes that have arrived, in [0, 1]
   * @returns {Promise<number>} milliseconds simulated
   */
  async carry(bytes, direction, onProgress = () => {}) {
    this.bytes[direction] += bytes;
    const milliseconds = this.profile ? transferMs(this.profile, bytes, { direction }) : 0;
    const begin = performance.now();
    for (let passed = 0; passed < milliseconds; passed = performance.now() - begin) {
      onProgress(passed / milliseconds);
      await new Promise((resolve) => setTimeout(resolve, Math.min(50, milliseconds - passed)));
    }
    onProgress(1);
    return milliseconds;
  }
}

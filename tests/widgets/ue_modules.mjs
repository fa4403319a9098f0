// Runs web/src/ue's rules as they are, for tests that hold them against the package's own: a list of questions on
// standard input, a list of answers on standard output, both JSON.

import { readFileSync } from "node:fs";
import { misses, select } from "../../web/src/ue/limits.js";
import { transferMs } from "../../web/src/ue/link.js";
import { PathChoice } from "../../web/src/ue/path_choice.js";
import { Battery, HURRY } from "../../web/src/ue/battery.js";

/** A generator of even numbers in [0, 1) that any seed starts (mulberry32). */
function seeded(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const ANSWERS = {
  misses: ({ card, capability, target }) => misses(card, capability, target).map(({ constraint }) => constraint),
  select: ({ cards, capability, target }) => select(cards, capability, target).card?.name ?? null,
  transfer: ({ profile, bytes, draws }) =>
    Array.from({ length: draws }, (_, i) => transferMs(profile, bytes, { random: seeded(i) })),
  path: ({ target, budgetMs, events }) => {
    const choice = new PathChoice(target, { budgetMs });
    return events.map(([what, ...about]) => choice[what](...about)).map((made) => made && [made.path, made.card?.name ?? null]);
  },
  battery: ({ seconds, millijoules }) => {
    const battery = Object.assign(new Battery(), { draining: true });
    battery.tick(0);
    for (let second = 1; second <= seconds; second++) {
      battery.drew(millijoules);
      battery.tick(1000 * second);
    }
    return { left: battery.left, hurry: HURRY };
  },
};

const questions = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(questions.map(({ what, ...about }) => ANSWERS[what](about))));

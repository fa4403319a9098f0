// One thing at a time, and always the newest that was asked for: never a queue.

/**
 * @template T
 * @param {(asked: T) => Promise<void>} work - settles what was asked; must not throw
 * @returns {{ask: (asked: T) => void, busy: () => boolean}} ask: what waited and was not begun is forgotten
 */
export function lane(work) {
  let busy = false;
  /** @type {{asked: T} | null} */
  let next = null;

  const run = async () => {
    busy = true;
    while (next) {
      const { asked } = next;
      next = null;
      await work(asked);
    }
    busy = false;
  };

  return {
    ask(asked) {
      next = { asked };
      if (!busy) run();
    },
    busy: () => busy,
  };
}

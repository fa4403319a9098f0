// The worker that makes textures of a field's rows, so that the page does not stand still: one message with a file, one
// answer, {textures} or {problem: text}.

import { gunzipped } from "../students/gzip.js";
import { readBakedRows } from "./baked_rows.js";
import { filledTextures } from "./brick_atlas.js";

/** @param {MessageEvent<Uint8Array>} message */
self.onmessage = async ({ data }) => {
  try {
    const content = await gunzipped(data);
    const begin = performance.now();
    const textures = filledTextures(readBakedRows(content));
    const answer = { textures: { ...textures, fillMs: performance.now() - begin } };
    self.postMessage(answer, { transfer: [textures.cells.buffer, textures.bricks.buffer] });
  } catch (error) {
    self.postMessage({ problem: String(error?.message ?? error) });
  }
};

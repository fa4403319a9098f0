// The worker that owns onnxruntime-web, so that no inference ever blocks the page.
//
// It answers two requests, each with one message of the same id:
//   {id, kind: "open", runtime, model, threads}           -> {id, answer: Opened}
//   {id, kind: "render", cameraToWorld, focal, centre}    -> {id, answer: Drawn}
// or, when that fails, {id, problem: text}. student_renderer.js says what they hold.

import * as ort from "onnxruntime-web/wasm";
import { gunzipped } from "./gzip.js";

/** Inputs of every light field's graph, see crowdnerf_lab/devices/pose_to_image.py, and their shapes. */
const INPUTS = { camera_to_world: [3, 4], focal: [2], centre: [2] };

/** @type {{session: ort.InferenceSession, width: number, height: number} | undefined} */
let student;

/** @param {{runtime: Uint8Array, model: Uint8Array, threads: number}} request */
async function open({ runtime, model, threads }) {
  const begin = performance.now();
  const [wasmBinary, graph] = await Promise.all([gunzipped(runtime), gunzipped(model)]);
  const unpacked = performance.now();
  // The runtime comes with the request: onnxruntime-web would otherwise fetch it from where it was published.
  Object.assign(ort.env.wasm, { wasmBinary, numThreads: threads });
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(graph, {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "all",
  });
  const [width, height] = pictureSize(session);
  student = { session, width, height };
  return {
    answer: {
      width,
      height,
      threads: ort.env.wasm.numThreads,
      graphBytes: graph.length,
      unpackMs: unpacked - begin,
      sessionMs: performance.now() - unpacked,
    },
  };
}

/**
 * Width and height of the pictures that a graph makes.
 *
 * @param {ort.InferenceSession} session
 * @returns {[number, number]}
 * @throws {Error} when it is no light field's
 */
function pictureSize({ inputNames, outputMetadata }) {
  const [output] = outputMetadata;
  const isLightField =
    Object.keys(INPUTS).every((name) => inputNames.includes(name)) && output.name === "image" && output.isTensor;
  if (!isLightField) {
    throw new Error(`the graph makes ${output.name} of ${inputNames.join(", ")}, not a picture; download it again`);
  }
  const [, height, width] = /** @type {number[]} */ (output.shape);
  return [width, height];
}

/** @param {{cameraToWorld: Float32Array, focal: number[], centre: number[]}} request */
async function render({ cameraToWorld, focal, centre }) {
  if (!student) throw new Error("no student has been opened; send it with the runtime first");
  const begin = performance.now();
  const values = { camera_to_world: cameraToWorld, focal, centre };
  const feeds = Object.fromEntries(
    Object.entries(INPUTS).map(([name, shape]) => [name, new ort.Tensor("float32", Float32Array.from(values[name]), shape)]),
  );
  const image = /** @type {Float32Array} */ ((await student.session.run(feeds)).image.data);
  const pixels = rgbaOf(image);
  const { width, height } = student;
  const answer = { width, height, image, pixels, ms: performance.now() - begin };
  return { answer, transfer: [image.buffer, pixels.buffer] };
}

/** @param {Float32Array} image - [h w 3] in [0, 1] */
function rgbaOf(image) {
  const pixels = new Uint8ClampedArray((image.length / 3) * 4);
  for (let from = 0, to = 0; from < image.length; to += 4) {
    pixels[to] = 255 * image[from++];
    pixels[to + 1] = 255 * image[from++];
    pixels[to + 2] = 255 * image[from++];
    pixels[to + 3] = 255;
  }
  return pixels;
}

/** @param {MessageEvent} message */
async function answerTo({ data: request }) {
  const { id, kind } = request;
  try {
    const { answer, transfer = [] } = await (kind === "open" ? open(request) : render(request));
    self.postMessage({ id, answer }, transfer);
  } catch (error) {
    self.postMessage({ id, problem: String(error?.message ?? error) });
  }
}

// With several threads, onnxruntime-web loads this very script again in each of them under this name.
if (self.name !== "em-pthread") self.onmessage = answerTo;

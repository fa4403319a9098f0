// What this browser can do, found out by asking it: nothing that leaves the page until a UE tells it to the network.

import { graphicsProcessor } from "../field/field_renderer.js";

/** Smallest modules that use fixed-width and relaxed SIMD: a browser that lacks them says they are not valid. */
const HEADER = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10];
const SIMD = [10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const RELAXED_SIMD = [15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11];

/** Share of the device's memory that models may take, as crowdnerf_lab/network/ues/capability_here.py has it. */
const SHARE_OF_MEMORY = 1 / 8;
/** MB, where the browser does not say: that of data/devices/browser.toml. */
const USUAL_MEMORY_MB = 512;
/** Milliseconds that `probedMs` takes on the machine of the bundled cards. */
const PROBE_ON_CARDS_MACHINE_MS = 7;
/** How fast WebAssembly runs a student, and software WebGL marches a field, on the processor that the cards were
 * measured on, in multiples of the native runtimes; and what is assumed of a graphics processor. All three hold only
 * until frames were drawn here. */
const SHARE_OF_NATIVE = { wasm: 0.3, software: 0.5, graphics: 10 };
/** Most threads that a student's worker is given. */
const MOST_THREADS = 4;

/**
 * @typedef {object} Findings
 * @property {number} cores
 * @property {number | null} memoryGb - null: the browser does not say
 * @property {boolean} simd
 * @property {boolean} relaxedSimd
 * @property {number} threads - that WebAssembly may use; 1 unless the page is cross-origin isolated
 * @property {{name: string, software: boolean} | null} graphics - what WebGL2 draws with
 * @property {string | null} webgpu - the adapter's name
 * @property {number} probeMs - of a fixed loop of arithmetic
 */

/**
 * Ask the browser; takes some 20 ms of its processor.
 *
 * @returns {Promise<Findings>}
 */
export async function findings() {
  const cores = navigator.hardwareConcurrency ?? 1;
  return {
    cores,
    memoryGb: navigator.deviceMemory ?? null,
    simd: WebAssembly.validate(Uint8Array.from([...HEADER, ...SIMD])),
    relaxedSimd: WebAssembly.validate(Uint8Array.from([...HEADER, ...RELAXED_SIMD])),
    threads: globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, cores) : 1,
    graphics: graphicsProcessor(),
    webgpu: await webgpuAdapter(),
    probeMs: probedMs(),
  };
}

/**
 * What these findings make of this browser as a UE.
 *
 * @param {Findings} found
 * @returns {import("./limits.js").Capability}
 */
export function capabilityOf({ memoryGb, simd, graphics, probeMs }) {
  const speed = PROBE_ON_CARDS_MACHINE_MS / probeMs;
  const drawing = graphics?.software ? SHARE_OF_NATIVE.software * speed : SHARE_OF_NATIVE.graphics;
  return {
    runtimes: [...(simd ? ["onnxruntime"] : []), ...(graphics ? ["webgl"] : [])],
    precisions: ["float32", "int8"],
    relative_speed: { onnxruntime: SHARE_OF_NATIVE.wasm * speed, webgl: drawing },
    busy: 0,
    memory_mb: memoryGb === null ? USUAL_MEMORY_MB : 1024 * memoryGb * SHARE_OF_MEMORY,
    link_mbit_s: 1000,
    rtt_ms: 1,
    position: null,
    battery_wh: null,
    battery_hours: 2,
  };
}

/** The name of the WebGPU adapter, or null. Drawing uses WebGL2: this is only told. */
async function webgpuAdapter() {
  if (!navigator.gpu) return null;
  const late = new Promise((resolve) => setTimeout(resolve, 500, null));
  const adapter = await Promise.race([navigator.gpu.requestAdapter().catch(() => null), late]);
  return adapter ? adapter.info?.description || adapter.info?.vendor || "unnamed" : null;
}

/** Milliseconds of a fixed loop of dependent multiplications and additions: the best of three. */
function probedMs() {
  const values = new Float32Array(1024).fill(0.5);
  const once = () => {
    const begin = performance.now();
    for (let round = 0; round < 4000; round++) {
      for (let i = 0; i < values.length; i++) values[i] = values[i] * 0.999 + 0.0005;
    }
    return performance.now() - begin;
  };
  return Math.max(0.1, Math.min(once(), once(), once()));
}

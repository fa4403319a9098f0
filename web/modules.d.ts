// What build.mjs makes of imports that are no JavaScript, and what TypeScript does not know of browsers.

declare module "*?bundled" {
  const text: string;
  export default text;
}
declare module "*.frag" {
  const text: string;
  export default text;
}
declare module "*.vert" {
  const text: string;
  export default text;
}

interface Navigator {
  /** Gigabytes, roughly; Chromium only (Device Memory API). */
  deviceMemory?: number;
  /** WebGPU, where offered. */
  gpu?: { requestAdapter(): Promise<{ info?: { description?: string; vendor?: string } } | null> };
}

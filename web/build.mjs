// Builds the browser's half of the package: web/src -> crowdnerf_lab/widgets/static, and says in built.json from what.
//
//   node web/build.mjs                 every entry whose source exists
//   node web/build.mjs explorer ...    the named ones only
//
// The built files are committed, so that nobody who installs the package needs node; tests/widgets/test_built.py fails
// when a source has changed since.

import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync, mkdirSync } from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import * as esbuild from "esbuild";

const WEB = dirname(fileURLToPath(import.meta.url));
const STATIC = resolve(WEB, "../crowdnerf_lab/widgets/static");
const RECORD = join(STATIC, "built.json");

/** Entries that esbuild bundles: name -> source. The styles that an entry imports become NAME.css beside NAME.js. */
const BUNDLES = {
  explorer: "src/explorer/widget.js",
  ue_widget: "src/ue/widget.js",
  ue_page: "src/ue/page.js",
  renderers: "src/renderers.js",
};

/** Files that go along with an entry as they are: name -> sources. */
const COPIES = {
  ue_page: ["src/ue/ue_page.html"],
  runtime: ["LICENSE.onnxruntime-web"],
};

/** Files that go along with an entry gzip'd: name -> sources. */
const COMPRESSED = {
  runtime: ["node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm", "NOTICES.onnxruntime-web"],
};

/** What every bundle is made with; browsers of 2022 and later have all of it. */
const OPTIONS = {
  bundle: true,
  format: "esm",
  target: ["es2022"],
  minify: true,
  legalComments: "inline",
  loader: { ".frag": "text", ".vert": "text" },
  metafile: true,
  write: false,
  logLevel: "warning",
};

/** @param {Uint8Array | string} content */
const sha256 = (content) => createHash("sha256").update(content).digest("hex");

/** Whether a path relative to web/ is ours rather than a package's. */
const isOurs = (path) => !path.startsWith("node_modules/") && !path.startsWith("..");

/**
 * A worker as text: `import text from "./student_worker.js?bundled"` gives the whole worker, bundled, to be started from
 * a Blob. A worker cannot be loaded from a file beside the widget: anywidget hands over one module without an address.
 *
 * @param {Set<string>} sources - gains what went into the worker, relative to web/
 */
const workersAsText = (sources) => ({
  name: "workers-as-text",
  setup(build) {
    build.onResolve({ filter: /\?bundled$/ }, ({ path, resolveDir }) => ({
      path: resolve(resolveDir, path.replace(/\?bundled$/, "")),
      namespace: "worker",
    }));
    build.onLoad({ filter: /.*/, namespace: "worker" }, async ({ path }) => {
      const { outputFiles, metafile } = await esbuild.build({ ...OPTIONS, absWorkingDir: WEB, entryPoints: [path] });
      Object.keys(metafile.inputs).filter(isOurs).forEach((source) => sources.add(source));
      return { contents: outputFiles[0].text, loader: "text" };
    });
  },
});

/**
 * Bundle one entry.
 *
 * @param {string} name
 * @returns {Promise<{file: string, content: Uint8Array, sources: Set<string>}[]>}
 */
async function bundled(name) {
  const workers = new Set();
  const { outputFiles, metafile } = await esbuild.build({
    ...OPTIONS,
    absWorkingDir: WEB,
    entryPoints: { [name]: BUNDLES[name] },
    outdir: STATIC,
    plugins: [workersAsText(workers)],
  });
  return outputFiles.map(({ path, contents }) => {
    const { inputs } = metafile.outputs[relative(WEB, path)];
    const sources = new Set(Object.keys(inputs).filter((input) => isOurs(input) && !input.startsWith("worker:")));
    if (path.endsWith(".js")) workers.forEach((source) => sources.add(source));
    return { file: basename(path), content: contents, sources };
  });
}

/** The files of an entry that are copied, plain or gzip'd. */
function copied(name) {
  const plain = (COPIES[name] ?? []).map((source) => ({
    file: basename(source),
    content: readFileSync(join(WEB, source)),
    sources: new Set([source]),
  }));
  const compressed = (COMPRESSED[name] ?? []).map((source) => ({
    file: `${basename(source)}.gz`,
    content: gzipSync(readFileSync(join(WEB, source)), { level: 9 }),
    sources: new Set([source].filter(isOurs)),
  }));
  return [...plain, ...compressed];
}

/** Versions of the packages that went in, as package.json pins them. */
function packages() {
  const { dependencies, devDependencies } = JSON.parse(readFileSync(join(WEB, "package.json"), "utf8"));
  return { ...dependencies, ...devDependencies };
}

/** Whether everything that an entry is built from has been written. */
function isThere(name) {
  return [BUNDLES[name] ?? [], COPIES[name] ?? [], COMPRESSED[name] ?? []]
    .flat()
    .every((source) => existsSync(join(WEB, source)));
}

/** An object with its keys in order, so that two builds of the same sources are the same bytes. */
const inOrder = (object) => Object.fromEntries(Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1)));

/** @param {string[]} names - entries to build */
async function build(names) {
  mkdirSync(STATIC, { recursive: true });
  const before = existsSync(RECORD) ? JSON.parse(readFileSync(RECORD, "utf8")).files : {};
  const files = Object.fromEntries(Object.entries(before).filter(([, { entry }]) => !names.includes(entry)));
  for (const entry of names) {
    const outputs = [...(BUNDLES[entry] ? await bundled(entry) : []), ...copied(entry)];
    for (const { file, content, sources } of outputs) {
      writeFileSync(join(STATIC, file), content);
      const from = [...sources].map((source) => [source, sha256(readFileSync(join(WEB, source)))]);
      files[file] = { entry, bytes: content.length, sha256: sha256(content), sources: inOrder(Object.fromEntries(from)) };
    }
  }
  writeFileSync(RECORD, `${JSON.stringify({ packages: packages(), files: inOrder(files) }, null, 1)}\n`);
}

const ENTRIES = [...new Set([...Object.keys(BUNDLES), ...Object.keys(COPIES)])];
const asked = process.argv.slice(2);
const unknown = asked.filter((name) => !ENTRIES.includes(name));
if (unknown.length) throw new Error(`no entry is called ${unknown.join(", ")}; choose from ${ENTRIES.join(", ")}`);
await build(asked.length ? asked : ENTRIES.filter(isThere));

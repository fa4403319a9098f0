// Which models fit this UE as it is now, and what the others miss: crowdnerf_lab/catalogue/{limits,select}.py for a
// page. tests/widgets/test_path_choice.py holds both against each other.

/**
 * What the UE can do now; the fields of catalogue/capability.py that a page knows.
 *
 * @typedef {object} Capability
 * @property {string[]} runtimes - "onnxruntime", "webgl"
 * @property {string[]} precisions - "float32", "int8"
 * @property {Record<string, number>} relative_speed - of each runtime: how many times as fast as the cards' machine
 * @property {number} busy - share of the processor that other work takes, in [0, 1)
 * @property {number} memory_mb - that models may take
 * @property {number} link_mbit_s
 * @property {number} rtt_ms
 * @property {[number, number, number] | null} position - of the viewer, metres
 * @property {number | null} battery_wh - what is left, to last for battery_hours; null: no limit
 * @property {number} battery_hours
 */

/**
 * What the UE accepts; null is no limit.
 *
 * @typedef {object} Target
 * @property {number | null} max_ms - of a frame
 * @property {number | null} max_download_s
 * @property {number} frames_per_s - that power has to suffice for
 */

/** @typedef {Record<string, any>} Card  a model card, as catalogue/card.py writes it */
/** @typedef {"runtime" | "precision" | "place" | "memory" | "download" | "latency" | "energy"} Constraint */
/** @typedef {{constraint: Constraint, says: string}} Miss  a limit that a model breaks, in words with both numbers */
/** @typedef {{card: Card | null, reason: string, refused: Map<string, Miss[]>}} Selection */

/** What a page runs each kind of model with. */
const RUNTIME_OF = { light_field: "onnxruntime", baked_field: "webgl" };
const RUNTIME_IN_WORDS = { onnxruntime: "WebAssembly", webgl: "WebGL2" };
const FAMILY_IN_WORDS = {
  ray_mlp: "ray MLP",
  plane_features: "planes",
  light_slab: "slab",
  baked_field: "baked field",
};
const FORM_IN_WORDS = {
  baked: "",
  onnx_int8_qdq: "int8",
  onnx_int8_qdq_signed: "int8 signed",
  onnx_int8_matmul: "int8 dynamic",
};
/** Memory of a model whose peak was not measured, in multiples of its uncoded file. */
const WORKING_SET = 4;
/** What another model must gain over one that still fits, dB. */
export const WORTH_DB = 0.2;

/** Against held-out photos where there were any, else against the probe views, dB. @param {Card} card */
export const psnrOf = (card) => card.quality.psnr ?? card.probe_psnr;

/** What a model takes while it runs, MB. @param {Card} card */
const memoryOf = (card) => card.peak_memory_mb ?? (WORKING_SET * (card.bytes_uncoded ?? card.bytes)) / 1e6;

/** Time of a frame here: the card's, by how fast this device computes; a proxy until frames were drawn.
 * @param {Card} card @param {Capability} capability */
export const frameMs = (card, { relative_speed, busy }) =>
  card.latency.median_ms / ((relative_speed[RUNTIME_OF[card.kind]] ?? 1) * (1 - busy));

/** Time until so many bytes have arrived, s. @param {number} bytes @param {Capability} capability */
export const downloadSeconds = (bytes, { rtt_ms, link_mbit_s }) => rtt_ms / 1e3 + (8 * bytes) / (link_mbit_s * 1e6);

/** What rendering may draw so that the battery lasts, W; null: no limit. @param {Capability} capability */
const wattsOf = ({ battery_wh, battery_hours }) => (battery_wh === null ? null : battery_wh / battery_hours);

/** How a model is called among those of its event: "ray MLP S, float32, 153 kB". @param {Card} card */
export function titleOf({ name, family, stored_as, bytes }) {
  const [, , variant] = name.split(".");
  if (!variant) return name;
  const form = FORM_IN_WORDS[stored_as] ?? stored_as.replace("onnx_", "").replaceAll("_", " ");
  const kind = `${FAMILY_IN_WORDS[family] ?? family} ${variant}`;
  return [kind, form, `${(bytes / 1e3).toFixed(0)} kB`].filter(Boolean).join(", ");
}

/**
 * Every limit that a model breaks on this UE; empty when it fits.
 *
 * @param {Card} card
 * @param {Capability} capability
 * @param {Target} target
 * @returns {Miss[]}
 */
export function misses(card, capability, target) {
  return [...cannotRun(card, capability), ...away(card, capability), ...exceeded(card, capability, target)];
}

/** @returns {Generator<Miss>} */
function* cannotRun(card, { runtimes, precisions }) {
  const runtime = RUNTIME_OF[card.kind];
  if (!runtimes.includes(runtime)) {
    yield { constraint: "runtime", says: `needs ${RUNTIME_IN_WORDS[runtime] ?? card.kind}, which this browser lacks` };
  }
  if (!precisions.includes(card.computes_in)) {
    yield { constraint: "precision", says: `computes in ${card.computes_in}, which this browser does not` };
  }
}

/** @returns {Generator<Miss>} */
function* away(/** @type {Card} */ { view_cell: cell }, { position }) {
  if (!cell) return;
  const distance = position ? Math.hypot(...position.map((value, axis) => value - cell.centre[axis])) : Infinity;
  if (distance > cell.radius) {
    const radius = cell.radius.toFixed(1);
    yield { constraint: "place", says: `was made for ${radius} m around another place, ${distance.toFixed(1)} m away` };
  }
}

/** @returns {Miss[]} */
function exceeded(card, capability, target) {
  const memory = memoryOf(card);
  const arrival = downloadSeconds(card.bytes, capability);
  const ms = frameMs(card, capability);
  const watts = wattsOf(capability);
  const spent = card.energy?.frame_mj ?? null;
  const allowed = watts === null ? null : (1e3 * watts) / target.frames_per_s;
  /** @type {[Constraint, number | null, number | null, () => string][]} */
  const amounts = [
    ["memory", memory, capability.memory_mb, () => `takes about ${memory.toFixed(0)} MB of memory`],
    ["download", arrival, target.max_download_s, () => `arrives after ${arrival.toFixed(1)} s over this link`],
    ["latency", ms, target.max_ms, () => `about ${ms.toFixed(0)} ms a frame here, more than ${target.max_ms} ms`],
    ["energy", spent, allowed, () => `about ${spent.toFixed(0)} mJ a frame, the battery allows ${allowed.toFixed(0)}`],
  ];
  return amounts
    .filter(([, value, limit]) => value !== null && limit !== null && value > limit)
    .map(([constraint, , , says]) => ({ constraint, says: says() }));
}

/**
 * The model of the highest PSNR that fits; of equals the smaller one.
 *
 * @param {Card[]} cards
 * @param {Capability} capability
 * @param {Target} target
 * @returns {Selection}
 */
export function select(cards, capability, target) {
  const judged = cards.map((card) => ({ card, missed: misses(card, capability, target) }));
  const refused = new Map(judged.filter(({ missed }) => missed.length).map(({ card, missed }) => [card.name, missed]));
  const fitting = judged.filter(({ missed }) => !missed.length).map(({ card }) => card);
  if (!fitting.length) return { card: null, reason: nearest(judged), refused };
  const card = fitting.sort(bestFirst)[0];
  return { card, reason: `${described(card)}, the best of ${fitting.length} that fit out of ${cards.length}`, refused };
}

/**
 * As select; but a model that still fits stays, unless another gains WORTH_DB over it.
 *
 * @param {Selection} before
 * @param {Card[]} cards
 * @param {Capability} capability
 * @param {Target} target
 * @returns {Selection}
 */
export function reselect(before, cards, capability, target) {
  const now = select(cards, capability, target);
  const kept = cards.find(({ name }) => name === before.card?.name);
  if (!kept || !now.card || now.card.name === kept.name || now.refused.has(kept.name)) return now;
  if (psnrOf(now.card) - psnrOf(kept) >= WORTH_DB) return now;
  return { ...now, card: kept, reason: `${described(kept)}, kept: ${titleOf(now.card)} is hardly better` };
}

/** @param {Card} card */
const described = (card) => `${titleOf(card)}, ${psnrOf(card).toFixed(1)} dB`;

/** @param {Card} a @param {Card} b */
const bestFirst = (a, b) => psnrOf(b) - psnrOf(a) || a.bytes - b.bytes || (a.name < b.name ? -1 : 1);

/** Why none fits: what the model that breaks the fewest limits breaks. */
function nearest(judged) {
  if (!judged.length) return "the event has no models yet";
  const [{ card, missed }] = [...judged].sort((a, b) => a.missed.length - b.missed.length || bestFirst(a.card, b.card));
  return `no model fits; the nearest, ${titleOf(card)}: ${missed.map(({ says }) => says).join("; ")}`;
}

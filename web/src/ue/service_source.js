// The network as the service of crowdnerf_lab.network: an event is joined, models and views are fetched over HTTP.

import { Refusal } from "./kernel_source.js";

/** @typedef {import("./kernel_source.js").Source} Source */

/** How long a fetch may take before it is given up, ms. */
const PATIENCE_MS = 60_000;
/** Who a page says it is; it sends no photos, so there is nothing to consent to. */
const JOINING = { device: "a browser", operating_system: "web", consent: { train: false, publish: false } };

/** A service that wants a join code, or another one. */
export class CodeNeeded extends Refusal {}

/**
 * The service that this page came from, as one UE of an event sees it. The token is kept for as long as the tab lives.
 *
 * @param {string} event
 * @returns {Source & {join: (code?: string) => Promise<void>}}
 */
export function serviceSource(event) {
  const place = `/events/${encodeURIComponent(event)}`;
  const kept = `crowdnerf token of ${event}`;
  let version = 0;

  const asked = async (path, options = {}) => {
    const headers = { ...options.headers, Authorization: `Bearer ${sessionStorage.getItem(kept)}` };
    const answer = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.status === 401) sessionStorage.removeItem(kept);
    return checked(answer);
  };
  const artefact = (name) => `${place}/versions/${version}/artefacts/${encodeURIComponent(name)}`;

  return {
    /** Become a UE of the event, unless this tab is one. Throws CodeNeeded. */
    async join(code) {
      if (sessionStorage.getItem(kept)) return;
      const { join_code_required: needed } = await (await checked(await fetch(place))).json();
      if (needed && !code) throw new CodeNeeded("this event asks for a join code");
      const answer = await fetch(`${place}/ues`, json({ ...JOINING, ...(code && { join_code: code }) }));
      if (answer.status === 403) throw new CodeNeeded("that is not the event's join code");
      sessionStorage.setItem(kept, (await (await checked(answer)).json()).token);
    },
    async event() {
      const [latest, links] = await Promise.all([asked(`${place}/versions/latest`), checked(await fetch("/ue/links"))]);
      version = latest.status === 204 ? 0 : (await latest.json()).version;
      const cards = version ? (await (await asked(`${place}/versions/${version}`)).json()).cards : [];
      return { event, version: version || null, cards, links: await links.json() };
    },
    async model(name) {
      const answer = await asked(`${artefact(name)}/browser`);
      const content = new Uint8Array(await answer.arrayBuffer());
      return { content, bytes: Number(answer.headers.get("Content-Length")) || content.length };
    },
    async runtime() {
      const answer = await checked(await fetch("/ue/ort-wasm-simd-threaded.wasm.gz"));
      return new Uint8Array(await answer.arrayBuffer());
    },
    probe: async (name) => (await asked(`${artefact(name)}/files/probe_0.png`)).blob(),
    async view(camera, { format, quality }) {
      const answer = await asked(`${place}/views`, json({ ...camera, format, quality }));
      const timing = answer.headers.get("Server-Timing") ?? "";
      return {
        content: await answer.blob(),
        renderMs: durationOf("render", timing),
        encodeMs: durationOf("encode", timing),
        width: Number(answer.headers.get("X-View-Width")),
        height: Number(answer.headers.get("X-View-Height")),
      };
    },
    report() {}, // the service asks nobody how it went
  };
}

/** The events that there are. @returns {Promise<{event: string, title: string, join_code_required: boolean}[]>} */
export async function listedEvents() {
  return (await (await checked(await fetch("/events"))).json()).events;
}

const json = (document) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(document),
});

/** Milliseconds of a stage, from Server-Timing. */
const durationOf = (stage, timing) => Number(timing.match(new RegExp(`${stage};dur=([\\d.]+)`))?.[1] ?? 0);

/** An answer that is none of the service's refusals (RFC 9457). @param {Response} answer */
async function checked(answer) {
  if (answer.ok) return answer;
  const { detail } = await answer.json().catch(() => ({}));
  const retryAfterS = Number(answer.headers.get("Retry-After")) || 0;
  throw new Refusal(detail ?? `the service answered ${answer.status} ${answer.statusText}`, retryAfterS);
}

// The UE as a page of the network's service: /ue?event=concert

import "./page.css";
import { element } from "../elements.js";
import { showUE } from "./panel.js";
import { CodeNeeded, listedEvents, serviceSource } from "./service_source.js";

const main = document.getElementById("ue");
const where = document.getElementById("event");

/** Ask for something before the UE starts. @param {string} name @param {string} words @param {Node[]} fields */
function asking(name, words, fields) {
  return new Promise((resolve) => {
    const form = element(
      "form",
      { class: "cn-ue-form" },
      element("p", { role: "status" }, words),
      ...fields,
      element("button", { type: "submit" }, "Join"),
    );
    form.onsubmit = (submitted) => {
      submitted.preventDefault();
      resolve(String(new FormData(form).get(name)));
    };
    main.replaceChildren(form);
    form.querySelector("input, select").focus();
  });
}

/** The event that the address names, else the only one, else the one that the reader picks. */
async function chosenEvent() {
  const named = new URLSearchParams(location.search).get("event");
  if (named) return named;
  const events = await listedEvents();
  if (!events.length) throw new Error("this service has no events yet");
  if (events.length === 1) return events[0].event;
  const options = events.map(({ event, title }) => element("option", { value: event }, title || event));
  const list = element("select", { name: "event", "aria-label": "Event" }, ...options);
  return asking("event", "Which event are you at?", [list]);
}

/** Join, with a code where the event wants one. @param {ReturnType<typeof serviceSource>} source */
async function joined(source) {
  for (let code; ; ) {
    try {
      return await source.join(code);
    } catch (error) {
      if (!(error instanceof CodeNeeded)) throw error;
      const field = element("input", { name: "code", required: true, autocomplete: "off", "aria-label": "Join code" });
      code = await asking("code", `${error.message}; enter the one shown at the event`, [field]);
    }
  }
}

try {
  const event = await chosenEvent();
  where.textContent = event;
  const source = serviceSource(event);
  await joined(source);
  const { close } = showUE(main, source);
  addEventListener("pagehide", close, { once: true });
} catch (error) {
  main.replaceChildren(element("p", { class: "cn-problem", role: "alert" }, error.message));
}

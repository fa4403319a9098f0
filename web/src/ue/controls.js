// Controls that only this page needs; the others are in ../elements.js.

import { element } from "../elements.js";

/**
 * A row of buttons of which one is chosen: a radio group, for the keyboard too.
 *
 * @param {string} legend
 * @param {[value: string, label: string][]} choices
 * @param {{name: string, value: string, onChange: (value: string) => void}} settings
 */
export function radios(legend, choices, { name, value, onChange }) {
  const options = choices.map(([each, label]) => {
    const checked = each === value;
    const input = element("input", { type: "radio", name, value: each, checked, onchange: () => onChange(each) });
    return element("label", { class: "cn-ue-option" }, input, label);
  });
  return element("fieldset", { class: "cn-ue-radios" }, element("legend", {}, legend), ...options);
}

/**
 * Give a list these options, if they are not its already; what is chosen stays.
 *
 * @param {HTMLSelectElement} select
 * @param {[value: string, label: string][]} options
 */
export function offer(select, options) {
  const same = select.length === options.length && options.every(([, label], i) => select.options[i].text === label);
  if (same) return;
  const { value } = select;
  select.replaceChildren(...options.map(([each, label]) => element("option", { value: each }, label)));
  if (options.some(([each]) => each === value)) select.value = value;
}

/** HTML elements in one call. */

/**
 * An element with its properties and children: `element("button", { type: "button", onclick }, "Home")`.
 *
 * Names that start with `aria-` or `data-`, and those that an element has only as attributes (`role`, `for`), become
 * attributes; `class` may be given as such. A property that is undefined is left out.
 *
 * @param {string} tag
 * @param {Record<string, any>} properties
 * @param {...(Node | string)} children
 * @returns {any} the element, of its own kind
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name in made) Reflect.set(made, name, value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** A button. @type {(text: string, onclick: () => void, properties?: Record<string, any>) => HTMLButtonElement} */
export const button = (text, onclick, properties = {}) =>
  element("button", { type: "button", onclick, ...properties }, text);

/** A control under the words that name it. @type {(words: string, control: HTMLElement) => HTMLLabelElement} */
export const labelled = (words, control) =>
  element("label", { class: "cn-labelled" }, element("span", { class: "cn-faint" }, words), control);

/**
 * A choice of one of several.
 *
 * @param {[value: string, words: string][]} options
 * @param {{value: string, onchange: (value: string) => void}} settings
 * @returns {HTMLSelectElement}
 */
export function choice(options, { value, onchange }) {
  const made = element(
    "select",
    {},
    ...options.map(([name, words]) => element("option", { value: name, selected: name === value }, words)),
  );
  made.onchange = () => onchange(made.value);
  return made;
}

/**
 * Keep keys from JupyterLab, which listens at the document and would take letters and Enter for commands to its
 * notebook: insert a cell, cut one, edit. Escape and keys with Ctrl, Alt or Meta go on.
 *
 * @param {HTMLElement} root
 */
export function keepKeys(root) {
  root.addEventListener("keydown", (event) => {
    const goesOn = event.ctrlKey || event.altKey || event.metaKey || event.key === "Escape";
    if (!goesOn) event.stopPropagation();
  });
}

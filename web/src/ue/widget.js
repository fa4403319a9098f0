// The UE in a notebook: anywidget's module.

import { keepKeys } from "../elements.js";
import { kernelSource } from "./kernel_source.js";
import { showUE } from "./panel.js";

/** @param {{model: any, el: HTMLElement}} context */
function render({ model, el }) {
  keepKeys(el);
  const source = kernelSource(model);
  const { close } = showUE(el, source);
  return () => {
    close();
    source.close();
  };
}

export default { render };

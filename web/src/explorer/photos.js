/** The crowd's photos: go to where one was taken, and blend it with the picture from there. */

import { choice, element, labelled } from "../elements.js";
import { placeOfPhoto, viewOfPhoto } from "./camera_trait.js";

/** @typedef {import("./camera_trait.js").PhotoOfUE} PhotoOfUE */
/** @typedef {ReturnType<typeof import("./pane.js").createPane>} Pane */
/** @typedef {ReturnType<typeof import("../camera/controls.js").createCameraControls>} CameraControls */

const NONE = "";

/**
 * @param {object} settings
 * @param {PhotoOfUE[]} settings.photos
 * @param {{width: number, height: number}} settings.picture  size of a pane at full resolution, pixels
 * @param {Pane[]} settings.panes
 * @param {() => CameraControls} settings.camera  the camera controls
 * @param {(row: number) => void} settings.ask  for a photo's bytes
 * @param {(row: number) => void} settings.onSnap  the camera is a photo's (its row), or no longer any's (-1)
 */
export function createPhotos({ photos, picture, panes, camera, ask, onSnap }) {
  /** @type {PhotoOfUE | null} */
  let chosen = null;
  let url = "";

  const select = choice(
    [[NONE, "none"], ...photos.map(({ row, ue, name }) => /** @type {[string, string]} */ ([String(row), `${ue} · ${name}`]))],
    { value: NONE, onchange: (row) => (row === NONE ? leave() : snapTo(Number(row))) },
  );
  const slider = element("input", { type: "range", min: 0, max: 1, step: 0.05, value: 0.5, disabled: true });
  slider.oninput = () => panes.forEach((pane) => pane.blend(slider.valueAsNumber));

  const forget = () => {
    panes.forEach((pane) => pane.lift());
    URL.revokeObjectURL(url);
    url = "";
    slider.disabled = true;
  };

  const leave = () => {
    if (!chosen) return;
    chosen = null;
    select.value = NONE;
    forget();
    onSnap(-1);
  };

  /** Stand where a photo was taken; -1 leaves the one that was gone to. @param {number} row  of the scene */
  const snapTo = (row) => {
    if (row === (chosen?.row ?? -1)) return;
    const photo = photos.find((candidate) => candidate.row === row);
    if (!photo) return leave();
    forget();
    chosen = photo;
    select.value = String(row);
    onSnap(row);
    ask(row);
    camera().flyTo(viewOfPhoto(photo, picture));
  };

  return {
    /** What the reader chooses with; nothing where there are no photos. @type {HTMLElement[]} */
    controls: photos.length ? [labelled("Go to the photo", select), labelled("Blend with the photo", slider)] : [],
    /** The reader moved away. */
    leave,
    snapTo,
    /** @param {number} row @param {DataView<ArrayBuffer>} content @param {string} mediaType */
    show(row, content, mediaType) {
      if (chosen?.row !== row) return;
      url = URL.createObjectURL(new Blob([content], { type: mediaType }));
      const words = `photo ${chosen.name} of ${chosen.ue}`;
      for (const pane of panes) {
        pane.lay(url, placeOfPhoto(chosen, picture), words);
        pane.blend(slider.valueAsNumber);
      }
      slider.disabled = false;
    },
    dispose: forget,
  };
}

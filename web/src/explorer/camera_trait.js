/** The explorer's camera as a widget's trait: what the kernel, and explorers linked to this one, are told. */

import { angleOf, cameraToWorld, viewOf } from "../camera/pose.js";

/** @typedef {import("../camera/pose.js").View} View */

/**
 * @typedef {object} CameraTrait
 * @property {number[]} camera_to_world  [3, 4] row by row, m
 * @property {number} field_of_view  across the image's height, radians
 * @property {number} distance  to the pivot, m
 */

/**
 * @typedef {object} PhotoOfUE  A photo of the crowd and the ideal camera that took it.
 * @property {number} row  of the scene
 * @property {string} name
 * @property {string} ue
 * @property {number[]} camera_to_world
 * @property {number} distance  to what the scene is about, m
 * @property {number} focal  pixels
 * @property {[number, number]} centre  pixels
 * @property {number} width  pixels
 * @property {number} height  pixels
 */

/** @type {(view: View) => CameraTrait} */
export const traitOf = (view) => ({
  camera_to_world: cameraToWorld(view),
  field_of_view: view.fieldOfView,
  distance: view.distance,
});

/** @type {(camera: CameraTrait) => View} */
export const viewOfTrait = (camera) =>
  viewOf(camera.camera_to_world, { distance: camera.distance, fieldOfView: camera.field_of_view });

/** Pixels of the picture that one pixel of a photo covers, when the whole photo is to be seen.
 * @type {(photo: PhotoOfUE, width: number, height: number) => number} */
const scaleOf = (photo, width, height) => Math.min(width / photo.width, height / photo.height);

/**
 * The view from where a photo was taken, with a lens that shows all of it.
 *
 * @param {PhotoOfUE} photo
 * @param {{width: number, height: number}} picture  pixels
 * @returns {View}
 */
export function viewOfPhoto(photo, { width, height }) {
  const focal = photo.focal * scaleOf(photo, width, height);
  return viewOf(photo.camera_to_world, { distance: photo.distance, fieldOfView: angleOf(focal, height) });
}

/**
 * Where a photo lies over a picture seen from where it was taken, in shares of the picture.
 *
 * @param {PhotoOfUE} photo
 * @param {{width: number, height: number}} picture  pixels
 */
export function placeOfPhoto(photo, { width, height }) {
  const scale = scaleOf(photo, width, height);
  return {
    left: 0.5 - (scale * photo.centre[0]) / width,
    top: 0.5 - (scale * photo.centre[1]) / height,
    width: (scale * photo.width) / width,
    height: (scale * photo.height) / height,
  };
}

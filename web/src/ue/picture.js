// Pictures as numbers: what was received, decoded; and how far one is from another.

/** @typedef {{rgba: Uint8ClampedArray, width: number, height: number}} Picture  sRGB bytes, rows from the top */

/** @param {Blob} content - PNG, WebP, JPEG @returns {Promise<ImageBitmap>} */
export const decoded = (content) => createImageBitmap(content, { colorSpaceConversion: "none" });

/** @param {ImageBitmap} bitmap @returns {Picture} */
export function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return { rgba: context.getImageData(0, 0, width, height).data, width, height };
}

/**
 * Peak signal-to-noise ratio of one picture against another of its size, dB; null when the sizes differ.
 *
 * 10 log10(255^2 / mean squared error over red, green and blue); Infinity when they are the same.
 *
 * @param {Picture} picture
 * @param {Picture} truth
 */
export function psnr(picture, truth) {
  if (picture.width !== truth.width || picture.height !== truth.height) return null;
  const [a, b] = [picture.rgba, truth.rgba];
  let squares = 0;
  for (let i = 0; i < a.length; i += 4) {
    squares += (a[i] - b[i]) ** 2 + (a[i + 1] - b[i + 1]) ** 2 + (a[i + 2] - b[i + 2]) ** 2;
  }
  return 10 * Math.log10((255 ** 2 * 0.75 * a.length) / squares);
}

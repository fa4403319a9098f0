// Content as it travels: gzip'd in messages of the kernel; what `fetch` brings from the service it has unpacked already.

/** How gzip files begin (RFC 1952, 2.3.1). No model does: graphs begin with 8, rows with the length of a header. */
const MAGIC = [0x1f, 0x8b, 0x08];

/**
 * Content without gzip, whether it had been gzip'd or not.
 *
 * @param {Uint8Array | DataView | ArrayBuffer} content
 * @returns {Promise<Uint8Array>}
 */
export async function gunzipped(content) {
  const bytes = bytesOf(content);
  if (MAGIC.some((value, place) => bytes[place] !== value)) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * @param {ArrayBufferView | ArrayBuffer} content
 * @returns {Uint8Array<ArrayBuffer>} the same memory
 */
function bytesOf(content) {
  return ArrayBuffer.isView(content)
    ? new Uint8Array(/** @type {ArrayBuffer} */ (content.buffer), content.byteOffset, content.byteLength)
    : new Uint8Array(content);
}

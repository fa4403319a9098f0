// Content as it travels: gzip'd, whether from the kernel or from the service.

/**
 * @param {Uint8Array | DataView | ArrayBuffer} content - gzip'd
 * @returns {Promise<Uint8Array>}
 */
export async function gunzipped(content) {
  const stream = new Blob([content]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

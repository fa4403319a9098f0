// Reads safetensors files, as crowdnerf_lab/fields/array_files.py writes them.

const ARRAYS = { U8: Uint8Array, I8: Int8Array, F32: Float32Array };

/**
 * Named arrays and texts of a safetensors file: 8 bytes of length, a JSON header, then the arrays.
 *
 * @param {Uint8Array} content
 * @returns {{arrays: Record<string, any>, meta: Record<string, string>}} arrays: typed, row after row
 */
export function readArrays(content) {
  try {
    const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
    const begin = 8 + Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(content.subarray(8, begin)));
    const { __metadata__: meta = {}, ...entries } = header;
    const arrays = Object.entries(entries).map(([name, entry]) => [name, arrayOf(content.subarray(begin), entry)]);
    return { arrays: Object.fromEntries(arrays), meta };
  } catch (error) {
    throw new Error(`the file of ${content.length} bytes is truncated or no safetensors file: ${error.message}`);
  }
}

function arrayOf(body, { dtype, shape, data_offsets: [first, last] }) {
  const kind = ARRAYS[dtype];
  const count = shape.reduce((product, side) => product * side, 1);
  if (last > body.length || last - first !== count * kind.BYTES_PER_ELEMENT) {
    throw new Error(`an array of ${shape} ${dtype} is said to lie in bytes ${first} to ${last} of ${body.length}`);
  }
  const bytes = body.subarray(first, last);
  const aligned = bytes.byteOffset % kind.BYTES_PER_ELEMENT === 0 ? bytes : bytes.slice();
  return new kind(aligned.buffer, aligned.byteOffset, count);
}

"""Named arrays and text in one safetensors file, written and read with numpy alone."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from crowdnerf_lab.files import write_bytes

MAX_HEADER_BYTES = 1 << 20
_DTYPES = {"F32": np.float32, "I8": np.int8, "U8": np.uint8}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}


def arrays_file(arrays: dict[str, np.ndarray], meta: dict[str, str]) -> bytes:
    """Arrays (float32, int8 or uint8) and texts as the content of one safetensors file, the same every time: the
    package of that name writes texts in random order. The widest numbers come first, so that all are aligned."""
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": meta}
    end = 0
    for name in names:
        first, end = end, end + arrays[name].nbytes
        dtype = _CODES[arrays[name].dtype]
        header[name] = {"dtype": dtype, "shape": arrays[name].shape, "data_offsets": [first, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return b"".join([struct.pack("<Q", len(head)), head, *(arrays[name].tobytes() for name in names)])


def write_arrays(path: Path, arrays: dict[str, np.ndarray], meta: dict[str, str]) -> Path:
    """Write arrays and texts as one safetensors file, atomically."""
    return write_bytes(path, arrays_file(arrays, meta))


def read_arrays(content: bytes, *, name: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `write_arrays` wrote: 8 bytes of length, a JSON header, then the arrays. Raises ValueError naming the file
    when it is truncated or something else."""
    try:
        (length,) = struct.unpack_from("<Q", content)
        if length > min(MAX_HEADER_BYTES, len(content) - 8):
            raise ValueError(f"its header claims {length} bytes")
        header = json.loads(content[8 : 8 + length])
        body = memoryview(content)[8 + length :]
        meta = header.pop("__metadata__", {})
        arrays = {array: _array_of(body, entry) for array, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"{name} is truncated or no safetensors file: {error}; fetch it again") from error
    return arrays, meta


def _array_of(body: memoryview, entry: dict[str, Any]) -> np.ndarray:
    first, last = entry["data_offsets"]
    if not 0 <= first <= last <= len(body):
        raise ValueError(f"an array ends at byte {last} of {len(body)}")
    return np.frombuffer(body[first:last], _DTYPES[entry["dtype"]]).reshape(entry["shape"]).copy()

"""Any file from the one before it: zstd with the old file as its dictionary, as `zstd --patch-from` does."""

from typing import Any

import zstandard

from crowdnerf_lab.coding.layered_file import CodedFileError

LEVEL = 12
"""19 takes ten times as long for 2 % less."""
LARGEST_WINDOW, SMALLEST_WINDOW = 30, 10
"""Logarithms of bytes that zstd looks back."""


def patch_of(old: bytes, new: bytes) -> bytes:
    """What makes `new` of `old`; small where they have long runs of bytes in common. Single-threaded: the same bytes
    on every machine."""
    window = min(max((len(old) + len(new)).bit_length(), SMALLEST_WINDOW), LARGEST_WINDOW)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, source_size=len(new), dict_size=len(old), window_log=window, enable_ldm=True, write_checksum=False
    )
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=_dictionary(old)).compress(new)


def patched(old: bytes, patch: bytes, *, length: int) -> bytes:
    """The new file, `length` bytes. Raises CodedFileError for a patch that does not make a file of that length."""
    try:
        told = zstandard.frame_content_size(patch)
        if told != length:
            raise CodedFileError(f"a patch makes {told} bytes, not {length}; fetch the new file whole")
        return zstandard.ZstdDecompressor(dict_data=_dictionary(old)).decompress(patch, max_output_size=length)
    except zstandard.ZstdError as error:
        raise CodedFileError(f"a patch is damaged ({error}); fetch the new file whole") from error


def _dictionary(content: bytes) -> Any:
    return zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_RAWCONTENT)

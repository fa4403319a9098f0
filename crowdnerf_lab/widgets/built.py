"""The browser's half of the package as built from web/: scripts, styles and onnxruntime-web's runtime."""

from pathlib import Path

STATIC = Path(__file__).parent / "static"
RUNTIME = "ort-wasm-simd-threaded.wasm.gz"
"""onnxruntime-web's WebAssembly, gzip'd: what the students' worker is started with."""


class BuiltFileError(OSError):
    """A built file that is not there; the message says how to build it."""


def built_file(name: str) -> Path:
    """The path of a built file, 'explorer.js' for instance. Raises BuiltFileError when it is not there."""
    path = STATIC / name
    if not path.is_file():
        raise BuiltFileError(
            f"{name} is not among the package's built files; install the package again, or in a checkout: "
            "npm ci --prefix web && node web/build.mjs"
        )
    return path

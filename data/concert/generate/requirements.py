"""What the generator needs beyond the package, checked before anything is drawn."""

import os
from importlib.util import find_spec
from pathlib import Path

LLVM_VARIABLE = "DRJIT_LIBLLVM_PATH"
DEBIAN_LLVM = Path("/usr/lib/x86_64-linux-gnu/libLLVM.so.19.1")


class RequirementError(OSError):
    """Something is not installed; the message gives the line that installs it."""


def check_requirements() -> None:
    """Raise RequirementError unless Mitsuba, piexif, pymap3d and LLVM 19 are there; point Dr.Jit to LLVM 19.

    Dr.Jit takes any LLVM it finds; version 15, which Debian 12 installs with other software, aborts the process.
    """
    missing = [module for module in ("mitsuba", "piexif", "pymap3d") if find_spec(module) is None]
    if missing:
        raise RequirementError(f'{", ".join(missing)} not found; pip install "crowdnerf-lab[synthesize]"')
    library = Path(os.environ.setdefault(LLVM_VARIABLE, str(DEBIAN_LLVM)))
    if not library.is_file():
        raise RequirementError(
            f"no LLVM at {library}; apt-get install libllvm19, or set {LLVM_VARIABLE} to the libLLVM of version 19"
        )

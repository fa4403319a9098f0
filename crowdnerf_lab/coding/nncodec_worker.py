"""Runs inside NNCodec's environment, which has no crowdnerf_lab: nncodec_worker.py encode|decode SOURCE TARGET.

Arrays travel as .npz under running numbers; names and the quantization parameter as settings.json beside them. What is
written on decoding: the arrays as TARGET, names as settings.json beside it.
"""

import importlib.abc
import importlib.machinery
import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

EXAMPLES_ONLY = ("torchvision", "torchmetrics", "cv2", "ptflops", "timm")
"""Packages that NNCodec imports at its top and uses in its examples alone."""


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path, target=None):
        if fullname.split(".")[0] in EXAMPLES_ONLY:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__name__ = [], spec, spec.name
        return module

    def exec_module(self, module):
        """Nothing to run: whatever is asked of the module is there, and does nothing."""


def main() -> None:
    """Encode or decode as the arguments say."""
    sys.path.pop(0)  # this file's folder, whose own nncodec.py would be found first
    sys.meta_path.append(_Absent())
    from nncodec.nn import decode, encode  # type: ignore[import-not-found]

    task, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if task == "encode":
        settings = json.loads((source.parent / "settings.json").read_text())
        arrays = np.load(source)
        tensors = {name: arrays[f"{k:06d}"] for k, name in enumerate(settings["names"])}
        target.write_bytes(bytes(encode(tensors, args={"qp": settings["qp"], "use_dq": True})))
        return
    decoded = decode(bytearray(source.read_bytes()))
    arrays = {f"{k:06d}": np.asarray(value, np.float32) for k, value in enumerate(decoded.values())}
    np.savez(target, allow_pickle=False, **arrays)
    (target.parent / "settings.json").write_text(json.dumps({"names": list(decoded)}))


if __name__ == "__main__":
    main()

"""What all tests share: one torch thread, reasons to skip in one place, and use-case rows that exist.

Nothing here may import crowdnerf_lab at module level: jaxtyping's hook must be in place first.
"""

import importlib.metadata
import importlib.util
import os
import shutil

import pytest
from hypothesis import settings

from tests.use_case import read_rows

pytest_plugins = ["pytester"]


def pytest_configure(config: pytest.Config) -> None:
    # Two cores are shared with the notebook series; with one thread a test takes the same time on any machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    # The same examples in every run, so that a failure can be repeated; no deadline: first calls compile kernels.
    settings.register_profile("lab", deadline=None, derandomize=True)
    settings.load_profile("lab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {name: reason() for name, reason in _REASONS_TO_SKIP.items()}
    rows = read_rows()
    for item in items:
        for name, reason in reasons.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))
        for marker in item.iter_markers("row"):
            if unknown := sorted(set(marker.args) - rows.keys()):
                raise pytest.UsageError(f"{item.nodeid}: the use case has no row {', '.join(unknown)}")


def _without_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


def _without_kaolin() -> str | None:
    try:
        version = importlib.metadata.version("kaolin")
    except importlib.metadata.PackageNotFoundError:
        return "kaolin is not installed (environment.yml has it)"
    return "kaolin 0.1 is PyPI's empty placeholder (environment.yml has the real one)" if version == "0.1" else None


def _without_browser() -> str | None:
    named = os.environ.get("BROWSER_PATH")
    found = named or shutil.which("chromium") or shutil.which("google-chrome")
    return None if found else "no Chromium found (install it or set BROWSER_PATH)"


def _without_colmap() -> str | None:
    return None if importlib.util.find_spec("pycolmap") else 'no pycolmap (pip install "crowdnerf-lab[colmap]")'


_REASONS_TO_SKIP = {
    "gpu": _without_gpu,
    "kaolin": _without_kaolin,
    "browser": _without_browser,
    "colmap": _without_colmap,
}

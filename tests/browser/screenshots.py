"""Screenshots against approved ones, by structural similarity: what a stranger would call the same picture.

Approved pictures lie in tests/browser/approved, small and of 64 colours. A picture that differs fails its test and is
left beside it under the name that the message gives. Look at it; if it is what it should be:

    APPROVE_SCREENSHOTS=1 make test PYTEST_ARGS="tests/browser -k the_test"

and commit what has changed in tests/browser/approved. They are in the first font that the pages ask for, Inter, and
compared only where it is installed.
"""

import functools
import io
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page
from skimage.metrics import structural_similarity

APPROVED = Path(__file__).parent / "approved"
COLOURS = 64
WIDEST = 640
"""Pixels across an approved picture: half of a laptop's window, where letters count as grey."""


def assert_looks_as_approved(
    seen: Page | Locator, name: str, *, folder: Path, mask: Sequence[Locator] = (), least: float = 0.9
) -> None:
    """Compare a page, or a part of one, with tests/browser/approved/NAME.png.

    folder: where to leave the picture if it differs. mask: what changes from run to run (numbers, times); painted over.
    least: mean structural similarity in [-1, 1] (Wang et al. 2004) from which they are the same. 0.9 lets pass another
    version of the fonts; a panel that is missing, a theme or a picture that is wrong falls below.
    """
    if not _has_inter():
        pytest.skip("approved pictures are in the font Inter, which is not installed (Debian: fonts-inter)")
    content = seen.screenshot(animations="disabled", caret="hide", mask=list(mask), mask_color="#808080")
    picture = _small(Image.open(io.BytesIO(content)).convert("RGB"))
    approved = APPROVED / f"{name}.png"
    if os.environ.get("APPROVE_SCREENSHOTS"):
        picture.quantize(COLOURS).save(approved, optimize=True)
    similarity = similarity_of(picture, _opened(approved)) if approved.exists() else float("nan")
    if not similarity >= least:
        left = folder / f"{name}.png"
        picture.save(left)
        raise AssertionError(
            f"{name}: similarity {similarity:.3f} to {approved.relative_to(APPROVED.parents[2])}, {least} needed (nan: "
            f"there is none, or of another size). Look at {left}; APPROVE_SCREENSHOTS=1 approves what is seen."
        )


def similarity_of(one: Image.Image, other: Image.Image) -> float:
    """Mean structural similarity of two pictures in colour; nan if their sizes differ by more than two pixels."""
    if max(abs(one.width - other.width), abs(one.height - other.height)) > 2:
        return float("nan")
    first, second = (np.asarray(picture.resize(one.size)) for picture in (one, other))
    return float(structural_similarity(first, second, channel_axis=2))


@functools.cache
def _has_inter() -> bool:
    if not (matching := shutil.which("fc-match")):
        return False
    found = subprocess.run([matching, "--format=%{family}", "Inter"], capture_output=True, text=True, check=False)
    return found.stdout.startswith("Inter")


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _small(picture: Image.Image) -> Image.Image:
    share = min(1.0, WIDEST / picture.width)
    return picture.resize((round(share * picture.width), round(share * picture.height)), Image.Resampling.LANCZOS)

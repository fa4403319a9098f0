"""Who a model was trained on: the contributors' pseudonyms, carried in the header of its weights and on its card.

So that the wish of one contributor to be forgotten finds every model that learned from their photos.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from crowdnerf_lab.scene import PosedScene

HEADER = "trained_on"
"""The entry of a safetensors header: a JSON list of pseudonyms."""


def contributors_of(scene: PosedScene) -> tuple[str, ...]:
    """The pseudonyms of those whose photos a model of this scene is trained on, in the scene's order."""
    trained = set(scene.capture_of_image[scene.train].tolist())
    return tuple(name for row, name in enumerate(scene.captures) if row in trained)


def as_header(trained_on: Sequence[str]) -> dict[str, str]:
    """What a safetensors header says about them: nothing when nobody is named."""
    return {HEADER: json.dumps(list(trained_on))} if trained_on else {}


def contributors_in(path: Path) -> tuple[str, ...] | None:
    """Who a file of weights (.safetensors) or an artefact's card (.json) says it was trained on; None: it does not say.

    A file that is damaged, or written before models carried this, does not say.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                named = json.loads((file.metadata() or {})[HEADER])
        else:
            named = [contributor["ue"] for contributor in json.loads(path.read_bytes())["provenance"][HEADER]]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return _names(named)


def _names(named: Any) -> tuple[str, ...] | None:
    if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
        return None
    return tuple(named)

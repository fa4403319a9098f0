"""A catalogue with a toy scene's baked field, views of it, and the limits of an engine: no training, milliseconds."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.catalogue import Catalogue, Version
from crowdnerf_lab.fields.baking import bake
from crowdnerf_lab.network.views.view_engine import ViewEngine, ViewPolicy, ViewRequest
from tests.toy_artefacts import random_grid
from tests.toy_catalogue import FOCAL, POSE, quality_of, write_toy_artefact

EVENT = "toys"


@dataclass(frozen=True)
class Limits:
    """Settings that an engine reads. The deadline is long: tests share their processors."""

    view_processes: int = 1
    view_deadline_ms: float = 30_000.0
    max_view_pixels: int = 1 << 20


@cache
def toy_field_file() -> bytes:
    """A baked field of coloured fog."""
    with TemporaryDirectory() as folder:
        return bake(random_grid()).save(Path(folder) / "field.safetensors").read_bytes()


def field_artefact(root: Path, name: str = "fog", *, psnr: float = 20.0, content: bytes | None = None) -> Artefact:
    return write_toy_artefact(
        root,
        name,
        content=toy_field_file() if content is None else content,
        file="model.safetensors",
        kind="baked_field",
        family="baked_field",
        stored_as="baked",
        quality=quality_of(psnr),
    )


def publish_field(catalogue: Catalogue, root: Path, *, name: str = "fog") -> Version:
    return catalogue.publish([field_artefact(root, name)], event=EVENT)


def request_from(place: float = 0.0, *, width: int = 48, height: int = 32) -> ViewRequest:
    """A view from so many metres beside the toy pose; other places show other pictures."""
    pose = np.array(POSE)
    pose[0, 3] += place
    focal = FOCAL[0] * width / 24
    return ViewRequest(pose, focal=(focal, focal), centre=(width / 2, height / 2), width=width, height=height)


@asynccontextmanager
async def running_engine(
    catalogue: Catalogue, *, limits: Limits | None = None, policy: ViewPolicy | None = None
) -> AsyncIterator[ViewEngine]:
    """An engine whose processes hold the catalogue's fields; looks at the catalogue often."""
    policy = replace(policy or ViewPolicy(), look_s=0.05, longest_deadline_ms=60_000.0)
    engine = ViewEngine(catalogue, settings=limits or Limits(), policy=policy)
    await engine.start()
    try:
        await until(lambda: engine.ready)
        yield engine
    finally:
        await engine.close()


async def until(condition: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Wait for something to become true; fails when it does not."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)

"""New captures to a published, improved version, as the standard preset trains: how long it takes and what it wins.

The concert as it arrives from left to right before the stage: a first version learns from the first 60 % of the UEs;
then 16 photos of the next ones come, faces and all, and `update_event` makes the next version: its time is
update_seconds. To compare, all other photos come at once: the first version's field is refined in the budget of an
update, and another one is trained anew on all photos, for as long as the first. The reference views that lie between
the UEs tell how good each is (nothing trains on them, and nothing is tuned by them): update_gain_fraction is the part
of the gain of training anew that refining reached, update_compute_fraction the part of its processor time.
"""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from crowdnerf_lab.captures.bundle import CaptureSet, Photo, concert
from crowdnerf_lab.captures.intake.one_file import digest_in
from crowdnerf_lab.captures.poses.calibration import calibrate
from crowdnerf_lab.captures.screening.screen import screen
from crowdnerf_lab.fields.storage import Field
from crowdnerf_lab.metrics import psnr_of_mse
from crowdnerf_lab.network.serving import RunningService, serve
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.ue_client import UE
from crowdnerf_lab.network.ues.rehearsal import positioned
from crowdnerf_lab.network.updates.event_folder import EventFolder
from crowdnerf_lab.network.updates.pipeline import Update, sandbox_for, update_event
from crowdnerf_lab.network.updates.update_settings import UpdateSettings
from crowdnerf_lab.presets import preset
from crowdnerf_lab.refinement import Learned, refine
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training import Fit, fit

EVENT = "concert"
FIRST_PART = 0.6
LATER_PHOTOS = 16
TEST_VIEWS = 8
"""Of the reference views, evenly chosen, at half their size."""
STUDENT_SECONDS = 8.0
"""Of the first version's student: only the ones that follow it are timed."""


@dataclass
class Sent:
    """What was sent, to find the concert's photos and UEs again behind pseudonyms and digests."""

    photo_of_digest: dict[str, str] = field(default_factory=dict)
    capture_of_ue: dict[str, str] = field(default_factory=dict)

    def renamed(self, learned: Learned) -> Learned:
        """What a field of the service has learned, by the concert's own names."""
        photos, trained_on = (
            tuple(self.photo_of_digest[digest_in(file)] for file in files)
            for files in (learned.photos, learned.trained_on)
        )
        captures = tuple(self.capture_of_ue[ue] for ue in learned.captures)
        return replace(learned, captures=captures, photos=photos, trained_on=trained_on, ues=captures)


def measure(*, quick: bool) -> dict[str, Any]:
    """update_seconds and its stages, update_gain_fraction, update_compute_fraction, PSNR of each field; with `quick`
    a tenth of the training."""
    sizes = preset("standard")
    seconds = sizes.fit_seconds / (10 if quick else 1)
    settings = UpdateSettings(
        first_fit_seconds=seconds,
        refine_seconds=UpdateSettings().refine_seconds / (10 if quick else 1),
        first_student_seconds=STUDENT_SECONDS / (10 if quick else 1),
        first_student_views=12,
        new_photos=1,
    )
    captures, _ = screen(concert(), progress=False)
    names = [capture.ue for capture in captures.captures]
    first = set(names[: round(FIRST_PART * len(names))])
    rest = [(capture.ue, photo) for capture in captures.captures if capture.ue not in first for photo in capture.photos]
    with tempfile.TemporaryDirectory(prefix="updates.") as folder, sandbox_for(settings) as sandbox:
        home, sent = Path(folder), Sent()
        service_settings = ServiceSettings(home=home, events=(EVENT,), train=False, view_processes=0)
        with serve(home, settings=service_settings) as service:
            early = [(ue, photo) for ue, photo in _photos(captures) if ue in first]
            asyncio.run(_send(service, captures, early, sent))
            without_faces = replace(settings, faces=False, most_at_once=len(early))
            begun = _made(update_event(home, EVENT, without_faces, sandbox=sandbox))
            learned = sent.renamed(Learned.load(EventFolder(home, EVENT).round(1).folder))
            asyncio.run(_send(service, captures, rest[:LATER_PHOTOS], sent))
            started = time.perf_counter()
            update = _made(update_event(home, EVENT, settings, sandbox=sandbox))
            update_seconds = time.perf_counter() - started
    return {
        "update_seconds": round(update_seconds, 1),
        "update_stages": {stage: round(value, 1) for stage, value in update.seconds.items()},
        "update_new_photos": update.new,
        "first_version_seconds": round(sum(begun.seconds.values()), 1),
        "update_judged_gain_db": round((update.psnr or 0.0) - (update.psnr_before or 0.0), 3),
    } | _compared(captures, learned, settings)


def _compared(captures: CaptureSet, learned: Learned, settings: UpdateSettings) -> dict[str, Any]:
    """The first field refined with all other photos, against one that is trained anew on all."""
    scene, _ = calibrate(captures, poses="truth", progress=False)
    taught = scene.with_split(scene.train.tolist(), [])
    spent = time.process_time()
    refined = refine(learned, taught, seconds=settings.refine_seconds, new_share=settings.new_share, progress=False)
    refining_s = time.process_time() - spent
    spent = time.process_time()
    anew: Fit = fit(taught, seconds=settings.first_fit_seconds, progress=False)
    anew_s = time.process_time() - spent
    before, reached, possible = (_psnr(model, scene) for model in (learned.field, refined.model, anew.model))
    return {
        "update_gain_fraction": round((reached - before) / max(possible - before, 1e-6), 3),
        "update_compute_fraction": round(refining_s / anew_s, 3),
        "psnr_before": round(before, 2),
        "psnr_refined": round(reached, 2),
        "psnr_anew": round(possible, 2),
    }


@torch.no_grad()
def _psnr(model: Field, scene: PosedScene) -> float:
    """On reference views, pooled over their pixels."""
    rows = scene.held_out[torch.linspace(0, len(scene.held_out) - 1, TEST_VIEWS).round().long()].tolist()
    small = scene.downscaled(2)
    errors = [
        torch.mean((render_view(model, small.cameras, row).colour.clamp(0, 1) - small.image(row)) ** 2) for row in rows
    ]
    return psnr_of_mse(float(torch.stack(errors).mean()))


def _photos(captures: CaptureSet) -> list[tuple[str, Photo]]:
    return [(capture.ue, photo) for capture in captures.captures for photo in capture.photos]


async def _send(service: RunningService, captures: CaptureSet, photos: Sequence[tuple[str, Photo]], sent: Sent) -> None:
    """Have each UE join and send its photos, as a phone that knows its pose."""
    for name in dict.fromkeys(ue for ue, _ in photos):
        async with UE(service.url, event=EVENT) as ue:
            joined = await ue.join()
            sent.capture_of_ue[joined.ue] = name
            for photo in (photo for owner, photo in photos if owner == name):
                path = captures.path_of(photo.file)
                await ue.send(path, capture=positioned(photo))
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                sent.photo_of_digest[digest_in(digest)] = photo.file


def _made(update: Update | None) -> Update:
    if update is None or update.version is None:
        raise RuntimeError(f"no version came of it: {update and update.reason}")
    return update


if __name__ == "__main__":
    import argparse
    import json
    import logging

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the training")
    logging.basicConfig(level=logging.INFO)
    print(json.dumps(measure(quick=parser.parse_args().quick)))

"""A toy event: a service's home where UEs have sent a few photos of the concert, and rounds of training of a second."""

import hashlib
import json
import shutil
import time
from pathlib import Path

from crowdnerf_lab.captures.bundle import GivenCamera, Photo, concert
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.updates.update_settings import UpdateSettings
from crowdnerf_lab.network.uploads.contributions import CaptureMetadata, inbox_file

EVENT = "concert"
QUICK = UpdateSettings(
    first_fit_steps=20,
    refine_steps=8,
    log2_rows=12,
    occupancy_cells=32,
    students=(),
    tiers=("full",),
    importance_batches=1,
    view_width=64,
    view_height=48,
    timed_frames=2,
    card_views=1,
    judged_every=4,
    judged_views=2,
    least_gain_db=-50.0,
    fewest_photos=4,
    new_photos=2,
    patience_s=1.0,
    photo_downscale=8,
    faces=False,
    workers=1,
    threads=1,
)
"""Rounds of a second: tiny photos and fields, and whatever comes of them is published."""


def photos_of_concert(*, start: int = 0, count: int = 8) -> list[tuple[str, Photo, Path]]:
    """UE, record and file of photos that pass the screening, of neighbours before the stage."""
    captures = concert()
    every = [(capture.ue, photo) for capture in captures.captures for photo in capture.photos]
    good = [(ue, photo) for ue, photo in every if photo.truth and photo.truth.spoiled_by is None]
    return [(ue, photo, captures.path_of(photo.file)) for ue, photo in good[start : start + count]]


def capture_of(photo: Photo) -> CaptureMetadata:
    """What a phone that knows its pose says of a photo."""
    assert photo.truth is not None
    assert photo.focal_px is not None
    camera = GivenCamera(
        camera_to_world=photo.truth.camera_to_world,
        focal_px=(photo.focal_px, photo.focal_px),
        centre_px=(photo.width / 2, photo.height / 2),
    )
    return CaptureMetadata(time_s=photo.time_s, focal_px=photo.focal_px, camera=camera)


def toy_home(home: Path, *, event: str = EVENT) -> Database:
    """A home with one event and nobody there."""
    database = Database(home)
    with database.transaction() as rows:
        rows.execute("INSERT OR IGNORE INTO events VALUES (?, ?, NULL, ?)", (event, event, time.time()))
    return database


def send(database: Database, *, start: int = 0, count: int = 8, event: str = EVENT, received: float = 0.0) -> list[str]:
    """Have UEs contribute photos as the service does: bytes in the inbox, then the row. Returns their ids."""
    ids = []
    for ue, photo, path in photos_of_concert(start=start, count=count):
        content = path.read_bytes()
        identity = hashlib.sha256(f"{event} {ue} {photo.file}".encode()).hexdigest()[:32]
        file = inbox_file(event, identity, suffix=path.suffix)
        target = database.path.parent / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        capture = capture_of(photo).model_dump_json(exclude_none=True)
        sha256 = hashlib.sha256(content).hexdigest()
        with database.transaction() as rows:
            consent = json.dumps({"train": True, "publish": True})
            rows.execute(
                "INSERT OR IGNORE INTO ues VALUES (?, ?, 'phone', NULL, ?, 'CC-BY-4.0', ?, NULL)",
                (event, ue, consent, time.time()),
            )
            rows.execute(
                "INSERT INTO contributions VALUES (?, ?, ?, ?, 'image/jpeg', ?, ?, ?, ?, 'received', NULL, NULL, ?)",
                (identity, event, ue, str(file), len(content), sha256, capture, received, time.time()),
            )
        ids.append(identity)
    return ids

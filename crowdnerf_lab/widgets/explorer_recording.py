"""A flight that is recorded beside the explorer, in a thread of its own, and can be stopped."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crowdnerf_lab.fields.appearance import Appearance
from crowdnerf_lab.live_rendering.camera_paths import camera_path
from crowdnerf_lab.live_rendering.modes import Mode
from crowdnerf_lab.live_rendering.recording import record_path
from crowdnerf_lab.live_rendering.sources import Model
from crowdnerf_lab.network.views.view_request import ViewRequest
from crowdnerf_lab.scene import PosedScene

log = logging.getLogger(__name__)

MEDIA_TYPE_OF = {"mp4": "video/mp4", "gif": "image/gif"}
TOLD_EVERY_S = 0.2


@dataclass(frozen=True)
class Flight:
    """What to record: key views, how long the flight through them takes, what is drawn, and into which file."""

    model: Model
    keys: Sequence[ViewRequest]
    seconds: float
    file: Path
    mode: Mode = "colour"
    photo: int | None = None
    scene: PosedScene | None = None
    appearance: Appearance | None = None


class RecordingStopped(Exception):  # noqa: N818 nothing went wrong
    """The reader wants no recording any more."""


class Recording:
    """Records a flight. on_progress: pictures done, and of how many, a few times a second; on_end: the file, or None
    and why there is none. Both are called in the recording's thread."""

    def __init__(
        self,
        flight: Flight,
        *,
        on_progress: Callable[[int, int], object],
        on_end: Callable[[Path | None, str], object],
    ) -> None:
        self._flight, self._on_progress, self._on_end = flight, on_progress, on_end
        self._stopping, self._told = threading.Event(), 0.0
        self._thread = threading.Thread(target=self._record, name="recording a flight", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the picture that is being drawn; no file is left."""
        self._stopping.set()

    def wait(self) -> None:
        """Until it has ended."""
        self._thread.join()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def _record(self) -> None:
        flight = self._flight
        try:
            file = record_path(
                flight.model,
                camera_path(flight.keys, seconds=flight.seconds),
                file=flight.file,
                mode=flight.mode,
                photo=flight.photo,
                scene=flight.scene,
                appearance=flight.appearance,
                progress=self._tell,
            )
        except RecordingStopped:
            self._on_end(None, "stopped; no file was written")
        except Exception as error:  # whatever a model or an encoder raises is for the reader to see
            log.exception("could not record %s", flight.file)
            self._on_end(None, str(error))
        else:
            self._on_end(file, "")

    def _tell(self, done: int, frames: int) -> None:
        if self._stopping.is_set():
            raise RecordingStopped
        if done == frames or time.monotonic() - self._told > TOLD_EVERY_S:
            self._told = time.monotonic()
            self._on_progress(done, frames)


def free_name(folder: Path, stem: str, suffix: str) -> Path:
    """A file of the folder that is not there yet: flight.mp4, flight-2.mp4, flight-3.mp4 ..."""
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := folder / f"{name}.{suffix}").exists())

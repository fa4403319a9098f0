"""A baked field that stands in for a slower field while the camera moves: marched four times as fast as the SH grid
that it is baked from, and within 1/255 of it almost everywhere."""

import logging
import threading

from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.baking import bake
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.live_rendering.sources import BakedSource

log = logging.getLogger(__name__)


class StandIn:
    """A baked field, some seconds after `start`. threads: of its march; None for all."""

    def __init__(self, field: BakedField | SHGrid, *, threads: int | None = None) -> None:
        self._threads = threads
        self._ready: BakedSource | None = None
        self._baking = threading.Thread(target=self._prepare, args=(field,), name="baking a stand-in", daemon=True)
        self._starting, self._started = threading.Lock(), False

    def start(self) -> None:
        """Begin to bake, in a thread of its own, unless that was done before."""
        with self._starting:
            if not self._started:
                self._baking.start()
            self._started = True

    @property
    def ready(self) -> BakedSource | None:
        """What to draw from; None until it is baked, and for good where that failed."""
        return self._ready

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the baking to end; whether there is something to draw from."""
        self.start()
        self._baking.join(timeout)
        return self._ready is not None

    def _prepare(self, field: BakedField | SHGrid) -> None:
        try:
            baked = bake(field) if isinstance(field, SHGrid) else field
            _ = baked.bricks  # built here, so that no frame has to wait for them
            self._ready = BakedSource(baked, threads=self._threads)
        except Exception:  # the view goes on without it
            log.exception("no baked field stands in for the moving view; it stays as slow as the field itself")


def stand_in_for(model: object, given: BakedField | bool, *, threads: int | None = None) -> StandIn | None:
    """What stands in for a model: the baked field that is given for it; else, if it may and can be baked, its own."""
    if isinstance(given, BakedField):
        return StandIn(given, threads=threads)
    return StandIn(model, threads=threads) if given and isinstance(model, SHGrid) else None

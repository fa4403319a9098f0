"""How network inference shares, degrades and watches views."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from crowdnerf_lab.network.views.view_cache import PoseSteps
from crowdnerf_lab.network.views.view_request import ViewRequest


@runtime_checkable
class ViewLimits(Protocol):
    """What the engine takes of the service's settings: processes, the usual deadline, the largest view."""

    @property
    def view_processes(self) -> int: ...
    @property
    def view_deadline_ms(self) -> float: ...
    @property
    def max_view_pixels(self) -> int: ...


@dataclass(frozen=True)
class ViewPolicy:
    """How views are shared, degraded and watched.

    scales: of width and height, from what was asked for down to the floor; smallest_side: pixels below which no view
    is degraded. cache_bytes: of encoded views. steps: how finely poses are told apart when views are shared.
    batch_ms: predicted work that a process is given at once when others wait. longest_deadline_ms: that a request may
    ask for. stuck_s: after which a process that does not answer is replaced. look_s: between two looks at the
    catalogue. events: of which fields stay in memory.
    """

    scales: tuple[float, ...] = (1.0, 0.75, 0.5)
    smallest_side: int = 32
    cache_bytes: int = 128 << 20
    steps: PoseSteps = field(default_factory=PoseSteps)
    batch_ms: float = 25.0
    longest_deadline_ms: float = 10_000.0
    stuck_s: float = 15.0
    look_s: float = 0.5
    events: int = 4

    def scales_for(self, request: ViewRequest, *, at_most: float = 1.0) -> list[float]:
        """Scales at which a view may be rendered, the best first; at least one."""
        allowed = [scale for scale in self.scales if scale <= at_most] or [min(self.scales)]
        side = min(request.width, request.height)
        return [scale for i, scale in enumerate(allowed) if i == 0 or scale * side >= self.smallest_side]

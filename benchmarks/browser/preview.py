"""What it costs to watch a fit while it runs: the concert's field, looked at through an explorer's renderer.

The same steps are trained unwatched, watched from the notebook's main thread (which trains, so that no camera comes
in), and in a thread of their own while a camera moves 30 times a second; in turn, several rounds of each. Time runs
from the first step to the last. Frames are encoded, as on their way to a browser.

`preview_cost`: time of the watched steps over that of the unwatched, less 1; medians of the rounds.
`preview_cost_processor`: the same of processor seconds, which a busy machine disturbs less.
`preview_fps`, `preview_pixels`: frames a second, and pixels of the median frame, with the camera moving.
"""

import threading
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from crowdnerf_lab.live_rendering.frame import Frame
from crowdnerf_lab.live_rendering.live_renderer import LiveRenderer
from crowdnerf_lab.network.views.view_request import ViewRequest
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training import fit
from crowdnerf_lab.training_control import TrainingControl, TrainingMoment
from crowdnerf_lab.workbench import open_workbench

WIDTH, HEIGHT = 640, 480
MOVES_PER_SECOND = 30
Watched = Literal["unwatched", "in the main thread", "in a thread"]
WAYS: tuple[Watched, ...] = ("unwatched", "in the main thread", "in a thread")


@dataclass
class _Run:
    """When steps were done, and what was seen of them."""

    stepped_at: list[float] = field(default_factory=list)
    processor_at: list[float] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    bytes: int = 0

    @property
    def seconds(self) -> float:
        return self.stepped_at[-1] - self.stepped_at[0]

    @property
    def processor_seconds(self) -> float:
        return self.processor_at[-1] - self.processor_at[0]

    def stepped(self, _: TrainingMoment) -> None:
        self.stepped_at.append(time.perf_counter())
        self.processor_at.append(time.process_time())

    def came(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.bytes += len(frame.encoded())


def measure(*, quick: bool) -> dict[str, Any]:
    """See the module; a row a round."""
    scene = open_workbench("standard").scene()
    rounds, steps = (1, 60) if quick else (3, 300)
    turns: list[tuple[int, Watched]] = [(number, way) for number in range(rounds) for way in WAYS]
    rows = [{"round": number, "fit": way} | _row(_trained(scene, way, steps=steps)) for number, way in turns]

    def middle(way: Watched, what: str) -> float:
        return median(row[what] for row in rows if row["fit"] == way)

    def cost(way: Watched, what: str) -> float:
        return middle(way, what) / middle("unwatched", what) - 1

    return {
        "preview_cost": cost("in the main thread", "seconds"),
        "preview_cost_in_a_thread": cost("in a thread", "seconds"),
        "preview_cost_processor": cost("in a thread", "processor s"),
        "preview_fps": middle("in a thread", "frames/s"),
        "preview_pixels": middle("in a thread", "pixels"),
        "preview_rounds": rows,
    }


def _trained(scene: PosedScene, way: Watched, *, steps: int) -> _Run:
    run, control = _Run(), TrainingControl()
    control.watch(run.stepped)
    if way == "unwatched":
        fit(scene, steps=steps, control=control, progress=False)
        return run
    with LiveRenderer(control, on_frame=run.came) as renderer:
        renderer.look(_beside(scene, 0))
        if way == "in the main thread":
            fit(scene, steps=steps, control=control, progress=False)
            return run
        training = threading.Thread(target=lambda: fit(scene, steps=steps, control=control, progress=False))
        training.start()
        moves = 0
        while training.is_alive():
            moves += 1
            renderer.look(_beside(scene, moves), number=moves)
            training.join(1 / MOVES_PER_SECOND)
    return run


def _beside(scene: PosedScene, moves: int) -> ViewRequest:
    """A held-out view from so many centimetres beside its camera."""
    camera = scene.cameras[int(scene.held_out[0])].resized(WIDTH, HEIGHT)
    pose = camera.camera_to_world.numpy().copy()
    pose[:, 3] += 0.01 * moves * pose[:, 0]
    (fx, fy), (cx, cy) = camera.focal.tolist(), camera.centre.tolist()
    return ViewRequest(pose, (fx, fy), (cx, cy), WIDTH, HEIGHT)


def _row(run: _Run) -> dict[str, Any]:
    return {
        "seconds": round(run.seconds, 3),
        "processor s": round(run.processor_seconds, 3),
        "frames": len(run.frames),
        "frames/s": round(len(run.frames) / run.seconds, 2),
        "pixels": median([frame.width * frame.height for frame in run.frames] or [0]),
        "kB": round(run.bytes / 1e3, 1),
    }


if __name__ == "__main__":
    from benchmarks.parts import run_parts

    run_parts("benchmarks.browser", ("preview",), about=__doc__ or "")

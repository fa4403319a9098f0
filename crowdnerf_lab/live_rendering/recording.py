"""A flight through a model as a file: MP4 (H.264) for everyone, GIF where nothing else is shown. Whole or absent."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from crowdnerf_lab.captures.video.containers import INSTALL, VideoError, installed_av
from crowdnerf_lab.fields.appearance import Appearance
from crowdnerf_lab.files import write_atomically
from crowdnerf_lab.live_rendering.adaptive import AdaptiveResolution
from crowdnerf_lab.live_rendering.frame import Look
from crowdnerf_lab.live_rendering.modes import Mode, Picture, radius_of
from crowdnerf_lab.live_rendering.painting import Painter
from crowdnerf_lab.live_rendering.sources import LiveRenderingError, Model, source_of
from crowdnerf_lab.network.views.view_request import ViewRequest
from crowdnerf_lab.scene import PosedScene

QUALITY = "20"
"""H.264's constant rate factor: 18 looks like the pictures, 23 is its default."""
GIF_COLOURS = 256

Progress = Callable[[int, int], object]
"""Called with how many pictures are done, and of how many. What it raises ends the recording, without a file."""


def record_path(
    model: Model,
    views: Sequence[ViewRequest],
    *,
    file: Path,
    frames_per_second: float = 24.0,
    mode: Mode = "colour",
    photo: int | None = None,
    scene: PosedScene | None = None,
    appearance: Appearance | None = None,
    progress: bool | Progress = True,
) -> Path:
    """Record the views of a flight (`camera_path` makes them) as an .mp4 or a .gif, as sharp as the model draws.

    mode, photo, scene, appearance: as for LiveRenderer. progress: a bar, none, or a function to call. An odd row or
    column is left out of an MP4, whose colours are halved in size.

    Raises LiveRenderingError for another kind of file, no views or a mode that the model has not, VideoError when MP4s
    cannot be written here, FileError when the disk is full.
    """
    file, suffix = Path(file), Path(file).suffix.lower()
    if suffix not in (".mp4", ".gif"):
        raise LiveRenderingError(f"{file} is neither an .mp4 nor a .gif; name one of these")
    if not views:
        raise LiveRenderingError(f"no views to record to {file}; make some with camera_path")
    painter = Painter(
        source_of(model, scene=scene),
        resolution=AdaptiveResolution(frames_per_second),
        radius=radius_of(model, scene=scene),
        appearance=appearance,
    )
    looks = [Look(view, mode, photo, moving=False) for view in views]
    for look in looks:
        painter.check(look)
    write = _write_mp4 if suffix == ".mp4" else _write_gif
    if suffix == ".mp4":
        _check_mp4()

    def fill(path: Path) -> None:
        with closing(_pictures(painter, looks, name=file.name, progress=progress)) as pictures:
            write(path, pictures, frames_per_second)

    return write_atomically(file, fill)


def _pictures(painter: Painter, looks: Sequence[Look], *, name: str, progress: bool | Progress) -> Generator[Picture]:
    with tqdm(total=len(looks), unit="picture", desc=f"record {name}", disable=progress is not True) as bar:
        for done, look in enumerate(looks, start=1):
            yield painter.sharpest(look).picture
            bar.update()
            if callable(progress):
                progress(done, len(looks))


def _check_mp4() -> None:
    """Raise VideoError unless H.264 can be encoded here."""
    try:
        av = installed_av()
    except VideoError:
        raise VideoError(f"recording an MP4 needs PyAV; install it with: {INSTALL}, or record a .gif") from None
    if "libx264" not in av.codecs_available:
        raise VideoError("this build of PyAV cannot encode H.264; install the wheel from PyPI, or record a .gif")


def _write_mp4(path: Path, pictures: Iterator[Picture], frames_per_second: float) -> None:
    av = installed_av()
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(frames_per_second).limit_denominator(1001))
        stream.pix_fmt, stream.options = "yuv420p", {"crf": QUALITY, "preset": "medium"}
        for number, picture in enumerate(pictures):
            height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
            if number == 0:
                stream.width, stream.height = width, height
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture[:height, :width].copy(), format="rgb24")))
        container.mux(stream.encode())


def _write_gif(path: Path, pictures: Iterator[Picture], frames_per_second: float) -> None:
    """The palette is the first picture's: one of its own for each would flicker and weigh as much again."""
    first = Image.fromarray(next(pictures)).quantize(GIF_COLOURS, dither=Image.Dither.NONE)
    rest = (Image.fromarray(picture).quantize(palette=first) for picture in pictures)
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=round(1000 / frames_per_second), loop=0)

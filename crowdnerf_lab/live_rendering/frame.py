"""A frame on its way to whoever looks: the picture, what it answers, and what it took."""

from dataclasses import dataclass

from crowdnerf_lab.live_rendering.modes import Legend, Mode, Picture
from crowdnerf_lab.network.views.view_codecs import Format, encode_picture
from crowdnerf_lab.network.views.view_request import ViewRequest


@dataclass(frozen=True)
class Look:
    """What somebody wants to see. view: at full size. photo: row of the scene's photo whose phone "as taken" is about.
    moving: whether the camera is on its way, so that soon counts more than sharp. number: of the asker, who finds it in
    the frames that answer."""

    view: ViewRequest
    mode: Mode = "colour"
    photo: int | None = None
    moving: bool = True
    number: int = 0


@dataclass(frozen=True)
class Frame:
    """A picture [h w 3], sRGB bytes, of the size at which it was drawn: stretch it over the look's view.

    look: what it answers. serial: 0, 1, 2 ... of its renderer, for `LiveRenderer.shown`. final: nothing sharper will
    follow for this look. moving: drawn to keep pace. stand_in: drawn from the baked field that stands in for a slower
    one. seconds: to draw. rays_per_second: what the next frame is planned by. legend: None where colours are colours.
    """

    picture: Picture
    look: Look
    serial: int
    final: bool
    moving: bool
    stand_in: bool
    seconds: float
    rays_per_second: float
    legend: Legend | None

    @property
    def width(self) -> int:
        """Pixels across."""
        return self.picture.shape[1]

    @property
    def height(self) -> int:
        """Pixels down."""
        return self.picture.shape[0]

    def encoded(self, format: Format = "jpeg", *, quality: int | None = None) -> bytes:
        """The picture as a file. quality: 1 to 100, by default 75 while moving and 90 at rest. JPEG takes a quarter of
        WebP's time, WebP two thirds of its bytes."""
        return encode_picture(self.picture, format=format, quality=quality or (75 if self.moving else 90))

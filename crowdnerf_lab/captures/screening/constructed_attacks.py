"""Pictures that somebody might send instead of a photo of the event, made up: to know what screening finds of them.

All are the same for the same seed. Pictures are upright, sRGB bytes [h w 3].
"""

import io
import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

Picture = UInt8[np.ndarray, "_ _ 3"]
SYLLABLES = ("ka", "lo", "mi", "ra", "ten", "us", "vo", "shi", "pel", "dor")
_SUPERSAMPLED = 2
_DISPLAY_GAMMA = 2.2
_DARK_GAP = 0.03
"""Fraction of a display's pixel between its red, green and blue stripes, on either side of each."""
_DARK_LINE = 0.08
"""The same above and below."""
_KEYSTONE = 0.05
"""Relative change of a display's scale across a photo that is not taken quite from the front."""


def screenshot(width: int = 585, height: int = 1266, *, dark: bool = False, seed: int = 0) -> Picture:
    """A chat on a phone: bars, bubbles, text."""
    words = _Words(seed)
    ground, bar, text = ((18, 18, 20), (30, 30, 34), "white") if dark else ((242, 242, 247), (255, 255, 255), "black")
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    unit = width // 20
    draw.rectangle((0, 0, width, 3 * unit), fill=bar)
    draw.text((unit, unit), "9:41", fill="gray", font=_font(unit))
    for row, top in enumerate(range(4 * unit, height - 6 * unit, 4 * unit)):
        mine = row % 2 == 0
        left = 7 * unit if mine else unit
        box = (left, top, left + 12 * unit, top + 3 * unit)
        draw.rounded_rectangle(box, unit, fill=(10, 120, 255) if mine else bar)
        draw.text((left + unit, top + unit), words.line(3), fill="white" if mine else text, font=_font(unit))
    draw.rectangle((0, height - 4 * unit, width, height), fill=bar)
    return np.asarray(image)


def text_page(width: int = 600, height: int = 800, *, seed: int = 0) -> Picture:
    """A page of dark print on white."""
    words = _Words(seed)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for top in range(height // 20, height - height // 20, 24):
        draw.text((width // 15, top), words.line(8), fill=(20, 20, 20), font=_font(16))
    return np.asarray(image)


def chart(width: int = 800, height: int = 600, *, seed: int = 0) -> Picture:
    """A bar chart with axes."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    ground, step = round(0.88 * height), width // 10
    for bar in range(1, 9):
        top = ground - round(generator.uniform(0.1, 0.8) * height)
        colour = tuple(generator.integers(0, 255, 3).tolist())
        draw.rectangle((bar * step, top, round((bar + 0.6) * step), ground), fill=colour)
    draw.line((step // 2, 20, step // 2, ground, width - 20, ground), fill="black", width=2)
    return np.asarray(image)


def gradient(width: int = 640, height: int = 480) -> Picture:
    """Colours that change smoothly: a wallpaper."""
    down, across = np.mgrid[0:height, 0:width]
    t = across / width
    return np.stack([255 * t, 180 * (1 - t), 100 + 100 * down / height], axis=-1).astype(np.uint8)


def code(side: int = 560, *, seed: int = 0) -> Picture:
    """Black and white modules, as a QR code has."""
    modules = np.random.default_rng(seed).integers(0, 2, (29, 29))
    scale = side // 35
    square = np.pad(np.kron(modules, np.ones((scale, scale))), 3 * scale, constant_values=1)
    return _grey((255 * square).astype(np.uint8))


def colour_bars(width: int = 640, height: int = 360) -> Picture:
    """Colour bars above a ramp."""
    bars = np.array([(1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1)]) * 192
    picture = np.repeat(bars[np.arange(width) * len(bars) // width][None], height, axis=0)
    picture[3 * height // 4 :] = np.linspace(0, 255, width)[None, :, None]
    return picture.astype(np.uint8)


def plain(value: int, width: int = 640, height: int = 480) -> Picture:
    """One grey everywhere; 0 is a lens cap."""
    return np.full((height, width, 3), value, dtype=np.uint8)


def cartoon(width: int = 800, height: int = 600, *, seed: int = 0) -> Picture:
    """Flat discs with outlines."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), (120, 190, 240))
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, radius = generator.uniform(0, width), generator.uniform(0, height), generator.uniform(0.03, 0.15) * height
        colour = tuple(generator.integers(0, 255, 3).tolist())
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="black", width=4)
    return np.asarray(image)


def letterboxed(photo: Picture, *, fraction: float = 0.25, value: int = 0) -> Picture:
    """A photo between two bars that take this fraction of the whole: a recording, or a picture made to fit."""
    height, width = photo.shape[:2]
    bar = max(1, round(height * fraction / (1 - fraction) / 2))
    edge = np.full((bar, width, 3), value, dtype=np.uint8)
    return np.concatenate([edge, photo, edge])


def shown_on_display(
    photo: Picture,
    *,
    pitch: float,
    turn: float = math.radians(2),
    blur: float = 0.5,
    width: int = 640,
    height: int = 480,
    seed: int = 0,
) -> Picture:
    """A camera's photo of a display that shows a photo.

    Each pixel of the display is three lit stripes between dark lines, `pitch` pixels of the camera wide; turn: of the
    camera about its axis, radians; blur: of the lens, standard deviation in camera pixels.
    """
    fine_w, fine_h = width * _SUPERSAMPLED, height * _SUPERSAMPLED
    down, across = np.mgrid[0:fine_h, 0:fine_w].astype(np.float32)
    x, y = (across + 0.5) / _SUPERSAMPLED - width / 2, (down + 0.5) / _SUPERSAMPLED - height / 2
    depth = (1 + _KEYSTONE * (x / width + y / height / 2)) * pitch
    columns, rows = (round(1.3 * side / pitch) + 4 for side in (width, height))
    u = ((math.cos(turn) * x + math.sin(turn) * y) / depth + columns / 2).clip(0, columns - 1.001)
    v = ((math.cos(turn) * y - math.sin(turn) * x) / depth + rows / 2).clip(0, rows - 1.001)
    shown = np.asarray(Image.fromarray(photo).resize((columns, rows), Image.Resampling.LANCZOS))
    light = (shown.astype(np.float32) / 255) ** _DISPLAY_GAMMA
    in_line = (v % 1 > _DARK_LINE) & (v % 1 < 1 - _DARK_LINE)
    seen = np.empty((height, width, 3), dtype=np.float32)
    for channel in range(3):
        start, end = channel / 3 + _DARK_GAP, (channel + 1) / 3 - _DARK_GAP
        lit = in_line & (u % 1 > start) & (u % 1 < end)
        bright = light[v.astype(int), u.astype(int), channel] * lit / ((end - start) * (1 - 2 * _DARK_LINE))
        sharp = gaussian_filter(bright, blur * _SUPERSAMPLED)
        seen[..., channel] = sharp.reshape(height, _SUPERSAMPLED, width, _SUPERSAMPLED).mean((1, 3))
    grain = np.random.default_rng(seed).normal(0, 2, seen.shape)
    return _bytes(255 * seen.clip(0, 1) ** (1 / _DISPLAY_GAMMA) + grain)


def noisy(photo: Picture, *, deviation: float = 30.0, seed: int = 0) -> Picture:
    """A photo with white noise of this standard deviation, in bytes."""
    return _bytes(photo + np.random.default_rng(seed).normal(0, deviation, photo.shape))


def cropped(photo: Picture, *, fraction: float = 0.93) -> Picture:
    """The upper left part of a photo, this fraction of each side."""
    height, width = photo.shape[:2]
    return photo[: round(fraction * height), : round(fraction * width)].copy()


def resized(photo: Picture, *, longer_side: int) -> Picture:
    """A photo at another size, as messengers make it."""
    height, width = photo.shape[:2]
    scale = longer_side / max(height, width)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))


def as_jpeg(picture: Picture, *, quality: int = 80) -> Picture:
    """What is left of a picture after JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality)
    return np.array(Image.open(buffer).convert("RGB"))


class _Words:
    """Lines of made-up words."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def line(self, words: int) -> str:
        lengths = self._generator.integers(1, 4, words)
        return " ".join("".join(self._generator.choice(SYLLABLES, length)) for length in lengths)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _grey(values: UInt8[np.ndarray, "h w"]) -> Picture:
    return np.repeat(values[..., None], 3, axis=2)


def _bytes(values: Float[np.ndarray, "h w 3"]) -> Picture:
    return values.round().clip(0, 255).astype(np.uint8)

"""The stage at a moment of the show: deck, truss towers, loudspeakers, instruments, screen, barrier and stands.

Metres, ENU: the deck's front edge lies at y = 0, the crowd at y < 0. Colours are linear reflectances unless said.
"""

import numpy as np
from geometry import Colour, MeshBuilder, lattice_girder
from jaxtyping import Float
from lights import Spotlight
from PIL import Image, ImageDraw, ImageFont

DECK_WIDTH, DECK_DEPTH, DECK_HEIGHT = 12.0, 7.0, 1.3
SCREEN_CENTRE = np.array([0, 6.6, 4.3])
SCREEN_WIDTH, SCREEN_HEIGHT = 9.0, 4.2
SCREEN_RADIANCE = 2.2
"""Linear radiance of a white pixel of the screen, in the unit of the spotlights."""


def stage_solids(spotlights: tuple[Spotlight, ...]) -> tuple[MeshBuilder, MeshBuilder]:
    """Everything on the stage that is neither a person nor a textured surface: (matte solids, metal solids)."""
    matte, metal = MeshBuilder(), MeshBuilder()
    _add_trusses(metal)
    _add_lamps(metal, spotlights)
    _add_loudspeakers(matte, metal)
    _add_stage_front(matte)
    _add_backline(matte, metal)
    _add_drum_kit(matte, metal)
    _add_keyboard_and_stands(matte, metal)
    _add_banners(matte)
    _add_barrier_and_stands(matte, metal)
    return matte, metal


def screen_image(time: float, *, width: int = 360, height: int = 168) -> Float[np.ndarray, "height width 3"]:
    """What the LED wall shows at a moment of the show (s): sRGB in [0, 1], first row on top."""
    down, right = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    stripes = 0.5 + 0.5 * np.sin(14 * (right + 0.35 * down) + time * 2)
    rings = 0.5 + 0.5 * np.sin(9 * np.hypot(right - 0.5, (down - 0.5) * 0.6) * 4 - time * 3)
    blueness = 0.55 + 0.10 * np.sin(time * 0.7)
    red, green, blue = 0.08 + 0.55 * stripes * rings, 0.05 + 0.18 * rings, 0.30 + 0.6 * (1 - stripes) * blueness
    pattern = np.stack([red, green, blue], -1)
    picture = Image.fromarray((pattern.clip(0, 1) * 255).astype(np.uint8))
    pen, rng = ImageDraw.Draw(picture), np.random.default_rng(5)
    for bar in range(26):
        left, rise = 6 + bar * 13.6, 12 + 48 * (0.5 + 0.5 * np.sin(3 * time + bar * 1.7)) * rng.random()
        pen.rectangle([left, height - 6 - rise, left + 9, height - 6], fill=(255, int(80 + 6 * bar), 40))
    for _ in range(9):
        x, y, radius = rng.uniform(10, width - 10), rng.uniform(8, 60), rng.uniform(5, 15)
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], outline=(255, 240, 180), width=3)
    font = ImageFont.load_default(size=58)
    white, purple = (255, 255, 255), (40, 0, 70)
    pen.text((width / 2, 70), "NOVA LIVE", font=font, fill=white, anchor="mm", stroke_width=2, stroke_fill=purple)
    return np.asarray(picture, np.float32) / 255


def screen_radiance(time: float) -> Float[np.ndarray, "height width 3"]:
    """Linear radiance of the LED wall."""
    return screen_image(time) ** 2.2 * SCREEN_RADIANCE


def mottled(size: int, base: Colour, *, contrast: float, seed: int) -> Float[np.ndarray, "size size 3"]:
    """A reflectance texture: `base` times one plus value noise of six octaves with this standard deviation."""
    return _limited(_mottled(size, base, contrast, np.random.default_rng(seed)))


def boards(size: int, base: Colour, *, contrast: float, seed: int, count: int) -> Float[np.ndarray, "size size 3"]:
    """A mottled floor of `count` boards with joints and bits of gaffer tape."""
    rng = np.random.default_rng(seed)
    floor = _mottled(size, base, contrast, rng)
    floor[:: size // count] *= 0.35
    floor[1 :: size // count] *= 0.5
    for board in range(count):
        rows = slice(board * size // count, (board + 1) * size // count)
        floor[rows] *= rng.uniform(0.7, 1.25)
        joint = rng.integers(size)
        floor[rows, joint : joint + 2] *= 0.4
    tapes = [[0.85, 0.85, 0.8], [0.8, 0.7, 0.1], [0.1, 0.5, 0.7], [0.7, 0.1, 0.1]]
    for _ in range(70):
        top, left = rng.integers(0, size - 12, 2)
        tape, length = rng.choice(tapes), rng.integers(6, 16)
        floor[top : top + 3, left : left + length] = tape
    return _limited(floor)


def _mottled(size: int, base: Colour, contrast: float, rng: np.random.Generator) -> np.ndarray:
    noise = np.zeros((size, size))
    for cells in (4, 8, 16, 32, 64, 128):
        octave = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        noise += np.asarray(octave.resize((size, size), Image.Resampling.BICUBIC)) / np.sqrt(cells)
    noise = (noise - noise.mean()) / noise.std()
    return np.array(base) * (1 + contrast * noise[..., None])


def _limited(reflectance: np.ndarray) -> np.ndarray:
    return reflectance.clip(0.005, 0.95).astype(np.float32)


def _add_trusses(metal: MeshBuilder) -> None:
    for x in (-6.4, 6.4):
        lattice_girder(metal, (x, -1.2, 0), (x, -1.2, 7.2))
        lattice_girder(metal, (x, 5.8, 0), (x, 5.8, 7.5))
        lattice_girder(metal, (x, -1.2, 7.2), (x, 5.8, 7.5))
    lattice_girder(metal, (-6.4, -1.2, 7.2), (6.4, -1.2, 7.2))
    lattice_girder(metal, (-6.4, 5.8, 7.5), (6.4, 5.8, 7.5))


def _add_lamps(metal: MeshBuilder, spotlights: tuple[Spotlight, ...]) -> None:
    for light in spotlights:
        back, front = light.position - light.axis * 0.32, light.position - light.axis * 0.02
        metal.cylinder(back, front, 0.15, colour=(0.06, 0.06, 0.07), sides=14)
        yoke = light.position - light.axis * 0.2 + [0, 0, 0.22]
        metal.box(yoke, (0.36, 0.2, 0.12), colour=(0.05, 0.05, 0.05))


def _add_loudspeakers(matte: MeshBuilder, metal: MeshBuilder) -> None:
    """Two hanging line arrays, each above two subwoofers."""
    for x in (-7.5, 7.5):
        for i in range(6):
            bend, z, pitch = 0.02 * i * i, 7.0 - 0.36 * i, 0.05 * i
            metal.box((x, 0.6 + bend, z), (0.9, 0.5, 0.33), colour=(0.07, 0.07, 0.08), pitch=pitch)
            matte.box((x, 0.34 + bend, z), (0.8, 0.01, 0.25), colour=(0.22, 0.22, 0.24), pitch=pitch)
        for i in range(2):
            z = 0.40 + 0.8 * i
            matte.box((x, 0.2, z), (1.2, 0.9, 0.76), colour=(0.05, 0.05, 0.055))
            matte.box((x, -0.26, z), (1.0, 0.02, 0.58), colour=(0.20, 0.19, 0.18))


def _add_stage_front(matte: MeshBuilder) -> None:
    """Skirt panels with coloured squares, and the stairs on the right."""
    squares = [(0.8, 0.1, 0.3), (0.1, 0.5, 0.8), (0.9, 0.6, 0.1)]
    for i in range(24):
        x = -DECK_WIDTH / 2 + 0.25 + 0.5 * i
        shade = np.array([0.10, 0.10, 0.12]) * (1.6 if i % 2 else 0.7)
        matte.box((x, -0.02, DECK_HEIGHT / 2), (0.46, 0.05, DECK_HEIGHT - 0.08), colour=shade)
        if i % 3 == 0:
            matte.box((x, -0.06, DECK_HEIGHT * 0.55), (0.3, 0.03, 0.3), colour=squares[(i // 3) % 3])
    for i in range(5):
        step = (6.4, 0.6, DECK_HEIGHT - 0.13 - 0.26 * i)
        matte.box(step, (0.8 + 0.5 * i, 1.2, 0.26), colour=(0.16, 0.16, 0.17))


def _add_backline(matte: MeshBuilder, metal: MeshBuilder) -> None:
    """Four towers of two cabinets with an amplifier on top, and the floor monitors."""
    for x in (-4.4, -3.2, 3.2, 4.4):
        cloth, head = ((0.32, 0.28, 0.20), (0.45, 0.40, 0.12)) if x < 0 else ((0.25, 0.25, 0.27), (0.5, 0.1, 0.1))
        for j in range(2):
            rise = 0.78 * j
            matte.box((x, 5.0, DECK_HEIGHT + 0.38 + rise), (1.0, 0.5, 0.74), colour=(0.06, 0.06, 0.06))
            z = DECK_HEIGHT + 0.34 + rise
            matte.box((x, 4.74, z), (0.86, 0.02, 0.52), colour=cloth)
            for aside in (-0.22, 0.22):
                cone = (x + aside, 4.735, z), (x + aside, 4.72, z)
                matte.cylinder(*cone, 0.17, colour=(0.10, 0.09, 0.08), sides=18)
        z = DECK_HEIGHT + 1.7
        matte.box((x, 4.95, z), (0.9, 0.4, 0.28), colour=head)
        for knob in range(6):
            aside = x - 0.3 + 0.12 * knob
            metal.cylinder((aside, 4.74, z), (aside, 4.71, z), 0.03, colour=(0.8, 0.8, 0.75), sides=8)
    for x in (-3.6, -1.4, 1.4, 3.6):
        matte.box((x, 0.55, DECK_HEIGHT + 0.18), (0.7, 0.45, 0.34), colour=(0.07, 0.07, 0.07), pitch=-0.5)
        matte.box((x, 0.72, DECK_HEIGHT + 0.28), (0.6, 0.02, 0.3), colour=(0.2, 0.2, 0.2), pitch=-0.9)


def _add_drum_kit(matte: MeshBuilder, metal: MeshBuilder) -> None:
    matte.box((0, 4.6, DECK_HEIGHT + 0.25), (3.2, 2.4, 0.5), colour=(0.18, 0.05, 0.06))
    riser, shell = DECK_HEIGHT + 0.5, (0.75, 0.10, 0.12)
    hub = riser + 0.32
    metal.cylinder((0, 3.75, hub), (0, 4.25, hub), 0.32, colour=shell, sides=24)
    matte.cylinder((0, 3.74, hub), (0, 3.735, hub), 0.30, colour=(0.9, 0.88, 0.82), sides=24)
    matte.cylinder((0, 3.733, hub), (0, 3.73, hub), 0.14, colour=(0.1, 0.1, 0.5), sides=16)
    toms = ((-0.35, 3.95, 0.78, 0.17), (0.28, 3.95, 0.80, 0.18), (0.75, 4.3, 0.45, 0.24), (-0.62, 4.25, 0.55, 0.19))
    for x, y, up, radius in toms:
        z = riser + up
        metal.cylinder((x, y, z - 0.15), (x, y - 0.03, z + 0.1), radius, colour=shell, sides=20)
        head = (x, y - 0.03, z + 0.1), (x, y - 0.035, z + 0.11)
        matte.cylinder(*head, radius * 0.95, colour=(0.9, 0.9, 0.86), sides=20)
    for x, y, up in ((-0.95, 3.95, 1.15), (0.98, 4.0, 1.2), (-1.1, 4.4, 0.95), (0.45, 3.7, 1.35)):
        z = riser + up
        cymbal = [(0, 0.27), (0.03, 0.12), (0.06, 0.001)]
        metal.lathe((x, y, z), (x, y, z + 0.1), profile=cymbal, colour=(0.85, 0.65, 0.20), sides=20)
        metal.cylinder((x, y, riser), (x, y, z), 0.015, colour=(0.6, 0.6, 0.6), sides=6)


def _add_keyboard_and_stands(matte: MeshBuilder, metal: MeshBuilder) -> None:
    """The keyboard on its stand and three microphone stands."""
    matte.box((4.0, 2.6, DECK_HEIGHT + 0.98), (1.4, 0.42, 0.10), colour=(0.05, 0.05, 0.06), yaw=0.35)
    matte.box((3.98, 2.52, DECK_HEIGHT + 1.035), (1.25, 0.16, 0.01), colour=(0.92, 0.92, 0.9), yaw=0.35)
    for side in (-0.5, 0.5):
        foot, top = (4 + side, 2.7, DECK_HEIGHT), (4 - side * 0.6, 2.55, DECK_HEIGHT + 0.95)
        metal.cylinder(foot, top, 0.02, colour=(0.4, 0.4, 0.4), sides=6)
    base = [(0, 0.16), (0.03, 0.14), (0.04, 0.01)]
    for x, y in ((0, 1.2), (-2.7, 1.3), (2.5, 1.3)):
        foot = (x, y, DECK_HEIGHT)
        metal.cylinder(foot, (x, y, DECK_HEIGHT + 1.5), 0.014, colour=(0.5, 0.5, 0.5), sides=6)
        metal.lathe(foot, (x, y, DECK_HEIGHT + 0.05), profile=base, colour=(0.2, 0.2, 0.2), sides=14)


def _add_banners(matte: MeshBuilder) -> None:
    for x, cloth in ((-5.75, (0.75, 0.08, 0.30)), (5.75, (0.08, 0.30, 0.70))):
        matte.box((x, 6.3, 4.2), (1.5, 0.04, 4.4), colour=cloth)
        for i in range(5):
            bar = (0.95, 0.9, 0.7) if i % 2 else (0.06, 0.06, 0.1)
            matte.box((x, 6.26, 2.6 + 0.8 * i), (1.0 - 0.14 * i, 0.03, 0.22), colour=bar)


def _add_barrier_and_stands(matte: MeshBuilder, metal: MeshBuilder) -> None:
    """The barrier before the first row, two side stands of six steps and a rear stand of seven."""
    for i in range(26):
        metal.box((-6.5 + 0.5 * i, -2.4, 0.55), (0.44, 0.06, 1.1), colour=(0.45, 0.46, 0.48))
    concrete = (0.17, 0.17, 0.19)
    for side in (-1, 1):
        for i in range(6):
            x, top = side * (13.0 + 1.1 * i), 0.5 + 1.0 * i
            matte.box((x, -8, 0.25 + 0.5 * i), (1.1, 20, top), colour=concrete)
    for i in range(7):
        matte.box((0, -20.5 - 1.1 * i, 0.25 + 0.5 * i), (30, 1.1, 0.5 + 1.0 * i), colour=concrete)

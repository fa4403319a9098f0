"""The look of all figures: words that can be read, marks that can be seen, colours that every eye tells apart."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from crowdnerf_lab import figures
from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.screening.report import ScreeningReport
from crowdnerf_lab.captures.screening.screen import ScreeningRow
from crowdnerf_lab.devices.profile import device_profiles
from crowdnerf_lab.figures.contrast import MARKS, WORDS, as_words, contrast, words_on
from crowdnerf_lab.figures.latency import COLOUR_OF_STAGE
from crowdnerf_lab.figures.network import COLOUR_OF_WAY
from crowdnerf_lab.figures.style import (
    COLOUR_OF,
    COLOUR_OF_CHECK,
    COLOUR_OF_DEVICE,
    FAINT,
    INK,
    QUALITATIVE,
    SHADE,
    TEMPLATE,
    VEIL,
    WIDTH,
)
from crowdnerf_lab.network.delivery.simulation import WAYS, Delivery
from crowdnerf_lab.network.links.latency_account import InferencePath
from crowdnerf_lab.network.links.link_profiles import LINKS
from crowdnerf_lab.network.updates.evening import PublishedVersion
from tests.toy_catalogue import toy_card
from tests.toy_field import toy_cameras

WHITE = "#ffffff"
APART = 18.0
"""Least distance in CIELAB of two colours that may meet in a figure, for every kind of colour vision."""
# Linear sRGB as seen without one kind of cone, Machado, Oliveira and Fernandes (2009), severity 1.
VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
D65 = np.array([0.95047, 1.0, 1.08883])
COLOURS = st.integers(0, 0xFFFFFF).map(lambda value: f"#{value:06x}")


@dataclass(frozen=True)
class Record:
    seconds: float
    held_out_psnr: float | None


def lab(colour: str, vision: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB (D65) of a colour as an eye with this vision sees it."""
    srgb = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    ratio = TO_XYZ @ (vision @ linear).clip(0, 1) / D65
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    "palette",
    [QUALITATIVE, tuple(COLOUR_OF_DEVICE.values()), tuple(COLOUR_OF_STAGE.values()), tuple(COLOUR_OF_WAY.values())],
    ids=["lines", "devices", "stages", "ways"],
)
def test_every_eye_tells_the_colours_of_a_palette_apart(palette: tuple[str, ...], vision: str):
    for one, other in itertools.combinations(palette, 2):
        distance = np.linalg.norm(lab(one, VISION[vision]) - lab(other, VISION[vision]))
        assert distance >= APART, f"{one} and {other} are {distance:.1f} apart"


def test_the_simulation_knows_whom_it_simulates():
    red, green = "#c00000", "#6a6a00"
    apart = {name: np.linalg.norm(lab(red, vision) - lab(green, vision)) for name, vision in VISION.items()}
    assert apart["protanopia"] < 0.5 * apart["usual"]
    assert np.allclose(lab(WHITE, VISION["deuteranopia"]), [100, 0, 0], atol=0.5)


def test_lines_and_marks_stand_out_from_the_page():
    for colour in (*QUALITATIVE, *COLOUR_OF.values(), *COLOUR_OF_CHECK.values(), *COLOUR_OF_STAGE.values()):
        assert contrast(colour, WHITE) >= MARKS, colour
    assert contrast(INK, WHITE) >= WORDS
    assert contrast(FAINT, WHITE) >= WORDS


def test_contrast_is_that_of_the_guidelines():
    assert contrast("#000000", WHITE) == pytest.approx(21)
    assert contrast(WHITE, "#000000") == pytest.approx(21)
    assert contrast("#767676", WHITE) == pytest.approx(4.54, abs=0.01)


@given(COLOURS)
def test_words_of_any_colour_can_be_read(colour: str):
    assert contrast(as_words(colour), WHITE) >= WORDS
    assert contrast(words_on(colour), colour) >= WORDS
    if contrast(colour, WHITE) >= WORDS:
        assert as_words(colour) == colour


def words_of(figure: go.Figure) -> Iterator[tuple[str, str]]:
    """Each colour of words in a figure with what it stands on; dark corners of pictures count as they are on white."""
    layout = figure.layout
    usual = layout.template.layout.font.color
    for axis in (each for name, each in layout.template.layout.to_plotly_json().items() if name.endswith("axis")):
        yield axis.get("tickfont", {}).get("color", usual), WHITE
    for note in layout.annotations:
        on = note.bgcolor or WHITE
        background = {SHADE: "#616161", "white": WHITE, VEIL: WHITE}.get(on, on)
        yield {"white": WHITE}.get(note.font.color, note.font.color) or usual, background
    for trace in figure.data:
        if "text" in (getattr(trace, "mode", None) or ""):
            yield trace.textfont.color or usual, WHITE
    for axis in (layout.scene.xaxis, layout.scene.yaxis, layout.scene.zaxis):
        yield axis.color or usual, WHITE


def marks_of(figure: go.Figure) -> Iterator[str]:
    """The colours of all lines and of marks that have one colour; of bars, their outline where they have one.

    What is paler on purpose (a prediction beside what was measured, a thin leader) is left out: words or a twin of full
    colour say the same.
    """
    for trace in figure.data:
        if trace.opacity is not None and trace.opacity < 1:
            continue
        mode = getattr(trace, "mode", None) or ""
        if "lines" in mode and trace.line.color:
            yield trace.line.color
        marker = getattr(trace, "marker", None)
        outline = marker.line.color if trace.type == "bar" else None
        colour = outline or getattr(marker, "color", None)
        if isinstance(colour, str) and colour.startswith("#"):
            yield colour


def all_figures() -> dict[str, go.Figure]:
    """One of each, of as little as shows all that it can hold."""
    random = torch.Generator().manual_seed(0)
    picture, cameras = torch.rand(12, 16, 3, generator=random), toy_cameras(4)
    captures = concert()
    some = captures.keeping([photo.file for photo in captures.photos[:4]])
    checks = ("blur", "over", "dark", "direction")
    report = ScreeningReport(
        tuple(
            ScreeningRow("ue", photo.file, some.path_of(photo.file), check, index == 0, "so it is", 0.2 * index, 0.3)
            for index, (photo, check) in enumerate(zip(some.photos, checks, strict=True))
        )
    )
    work = {"flops": 900_000_000, "bytes_moved": 50_000_000, "parameters": 400_000}
    layers = {
        "coding": "progressive",
        "bytes_uncoded": 1_900_000,
        "steps": ({"step": "trained", "psnr": 18.1}, {"step": "coded", "psnr": 18.0}),
        "layers": tuple(
            {"bytes": size, "psnr": psnr, "sha256": "0" * 64} for size, psnr in ((100_000, 14.0), (300_000, 18.0))
        ),
    }
    cards = [
        toy_card(f"toy.ray_mlp.{name}", size=size, psnr=psnr, ms=ms, **work, **more)
        for name, size, psnr, ms, more in (("S", 300_000, 18.0, 9.0, layers), ("M", 900_000, 18.5, 25.0, {}))
    ]
    device = InferencePath("device", bytes_once=1_000_000, load_ms=80.0, frame_ms=20.0, name="student S")
    network = InferencePath("network", bytes_per_view=10_000, queue_ms=5.0, render_ms=60.0, decode_ms=2.0)
    slow = LINKS["crowded_cell"]
    accounts = [path.first_pixels(slow) for path in (network, device)]
    wanted, seconds = np.zeros(100), np.linspace(0.5, 4.5, 100)
    versions = [PublishedVersion(60, 1, 16.0), PublishedVersion(120, 2, 15.5, withdrawn="it measured worse")]
    curve = np.linspace(0.2, 0.1, 100)
    return {
        "capture_map": figures.capture_map({"kept": cameras, "blurred": cameras}, points=cameras.positions),
        "completion": figures.completion({way: Delivery(way, wanted, seconds, {}) for way in WAYS}),
        "crossover": figures.crossover({"network": network, "phone": device}),
        "crowd_map": figures.crowd_map(some, report),
        "image_strip": figures.image_strip({"truth": picture, "bright": picture * 0 + 1}, truth=picture),
        "largest_models": figures.largest_models([slow], models={"student": 100_000}, budgets_s=(0.5, 1.0)),
        "latency_account": figures.latency_account(accounts),
        "latency_bars": figures.latency_bars(cards, device_profiles()),
        "load_curve": figures.load_curve([figures.LoadPoint(10, 20, 30, 40), figures.LoadPoint(100, 40, 90, 200)]),
        "pareto": figures.pareto(cards, teacher_psnr=20.0),
        "progressive_curves": figures.progressive_curves(cards),
        "rate_distortion": figures.rate_distortion(cards, teacher=(180_000.0, 20.0)),
        "screening_margins": figures.screening_margins(report),
        "screening_sheet": figures.screening_sheet(some, report),
        "sparsification": figures.sparsification({"doubt": curve, "true error": curve}),
        "training_curve": figures.training_curve({str(n): [Record(1.0, 12.0 + n)] for n in range(len(QUALITATIVE))}),
        "triptych": figures.triptych(picture, picture + 0.1),
        "update_timeline": figures.update_timeline(versions, contributions=[30, 90]),
    }


@pytest.fixture(scope="module")
def gallery() -> dict[str, go.Figure]:
    return all_figures()


def test_all_figures_have_one_size_and_one_template(gallery: dict[str, go.Figure]):
    for name, figure in gallery.items():
        assert figure.layout.width == WIDTH, name
        assert figure.layout.template == TEMPLATE, name


def test_all_words_of_all_figures_can_be_read(gallery: dict[str, go.Figure]):
    for name, figure in gallery.items():
        for words, background in words_of(figure):
            assert contrast(words, background) >= WORDS, f"{name}: {words} on {background}"


def test_all_marks_of_all_figures_can_be_seen(gallery: dict[str, go.Figure]):
    for name, figure in gallery.items():
        for colour in marks_of(figure):
            assert contrast(colour, WHITE) >= MARKS, f"{name}: {colour}"


def test_colours_are_named_in_one_place():
    literal = re.compile(r"[\"'](?:#[0-9a-fA-F]{6}|rgba\([\d.,]+\))[\"']")
    for module in Path(figures.__file__).parent.glob("*.py"):
        if module.stem not in ("style", "contrast"):
            assert literal.findall(module.read_text()) == [], module.name

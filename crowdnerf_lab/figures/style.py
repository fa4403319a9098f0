"""The visual language of all figures: sizes, ink, fonts, and colours that mean the same everywhere.

Colours have the hues of Okabe and Ito (2008), which colour-blind readers can tell apart, dark enough to be lines on
white (a contrast of 3) and moved apart until every two differ by 18 in CIELAB with each kind of colour vision
(simulated as by Machado et al. 2009). Words in such a colour are darker still: `contrast.as_words`.
"""

import math
from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

WIDTH = 960
"""Width of every figure in pixels: a notebook's column, and GitHub's."""
GAP = 10
"""Pixels between pictures that stand side by side."""
INK, FAINT, GRID = "#1f2a36", "#6b7785", "#e6eaee"
SHADE, VEIL = "rgba(0,0,0,0.62)", "rgba(255,255,255,0.8)"
"""Behind white words in the corner of a picture, and behind dark words on lines."""
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, sans-serif"
QUALITATIVE = ("#0a65a2", "#b64c00", "#08a275", "#ae638f", "#ce8401", "#7496c8", "#8a6e3f", "#000000")
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BROWN, BLACK = QUALITATIVE
REASONS: dict[str, str] = {
    "consent": "no consent",
    "readable": "unreadable",
    "small": "too small",
    "drawn": "no photo",
    "framed": "bars",
    "display": "display",
    "time": "wrong time",
    "place": "wrong place",
    "direction": "wrong way",
    "dark": "dark",
    "over": "over-exposed",
    "blur": "blurred",
    "noise": "noisy",
    "duplicate": "copy",
    "copied": "copied place",
    "speed": "too fast",
    "frozen": "frozen place",
    "position": "false place",
    "attitude": "false attitude",
}
"""A reader's word for what each check of the screening finds."""
COLOUR_OF_DEVICE: dict[str, str] = {
    "phone": BLUE,
    "glasses": PURPLE,
    "watch": SKY,
    "browser": ORANGE,
    "laptop": GREEN,
    "server": VERMILION,
}
"""A class of devices has the same colour through the whole series."""
SYMBOL_OF_FORMAT: dict[str, str] = {
    "onnx_float32": "circle-open",
    "onnx_float16": "triangle-up-open",
    "onnx_int8_weights": "square-open",
    "onnx_int4_weights": "triangle-down-open",
    "onnx_int8_qdq": "diamond-open",
    "onnx_int8_qdq_signed": "diamond-tall-open",
    "onnx_int8_matmul": "star-diamond-open",
    "onnx_int8_mixed": "pentagon-open",
    "baked": "hexagon-open",
}
NAME_OF_FORMAT: dict[str, str] = {
    "onnx_float32": "float32",
    "onnx_float16": "float16 weights",
    "onnx_int8_weights": "int8 weights",
    "onnx_int4_weights": "int4 weights",
    "onnx_int8_qdq": "int8",
    "onnx_int8_qdq_signed": "int8, signed",
    "onnx_int8_matmul": "int8, dynamic",
    "onnx_int8_mixed": "int8, mixed",
    "baked": "baked field",
}
NAME_OF_CODING: dict[str, str] = {"none": "", "zstd": "zstd", "range": "range coded", "progressive": "progressive"}
SYMBOL_OF_FAMILY: dict[str, str] = {
    "ray_mlp": "circle",
    "plane_features": "diamond",
    "light_slab": "square",
    "baked_field": "hexagon",
}
NAME_OF_FAMILY: dict[str, str] = {
    "ray_mlp": "ray MLP",
    "plane_features": "planes",
    "light_slab": "slab",
    "baked_field": "baked",
}
KEPT = "kept"
COLOUR_OF_CHECK: dict[str, str] = {
    "consent": BROWN,
    "readable": BLACK,
    "small": SKY,
    "drawn": "#6A3D9A",
    "framed": "#9E6EBD",
    "display": "#3F007D",
    "time": "#A6761D",
    "place": "#B2182B",
    "direction": VERMILION,
    "dark": GREEN,
    "over": PURPLE,
    "blur": ORANGE,
    "noise": "#7F7F00",
    "duplicate": "#5A6B7B",
    "copied": "#67001F",
    "speed": "#EF6548",
    "frozen": "#2B8CBE",
    "position": "#C51B7D",
    "attitude": "#8C510A",
}
"""Related checks have related colours; wherever one appears, its word stands beside it."""
COLOUR_OF = {
    KEPT: BLUE,
    **{word: COLOUR_OF_CHECK[check] for check, word in REASONS.items()},
    **COLOUR_OF_DEVICE,
    "network": COLOUR_OF_DEVICE["server"],
}
"""What has the same colour in every figure: findings of the screening, and who renders."""

NOTE: dict[str, Any] = {"showarrow": False, "font": {"size": 12, "color": INK}}
"""Words beside a line or a point."""
ABOVE: dict[str, Any] = {
    "orientation": "h",
    "x": 0,
    "y": 1.02,
    "yanchor": "bottom",
    "font": {"size": 12},
    "traceorder": "normal",
}
"""A legend above the figure."""

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "title": {"x": 0.0, "xref": "paper", "xanchor": "left", "font": {"size": 15}},
        "colorway": list(QUALITATIVE),
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
        "legend": {"bgcolor": "rgba(0,0,0,0)"},
        "xaxis": {"gridcolor": GRID, "zeroline": False, "linecolor": FAINT, "ticks": "outside", "tickcolor": FAINT},
        "yaxis": {"gridcolor": GRID, "zeroline": False, "linecolor": FAINT, "ticks": "outside", "tickcolor": FAINT},
        "hoverlabel": {"font": {"family": FONT}},
    }
)


def colours_of(names: Iterable[str]) -> list[str]:
    """A colour for each name: the one that the name, up to a colon, has everywhere; else the next of the palette."""
    return [
        COLOUR_OF.get(name.partition(":")[0], QUALITATIVE[position % len(QUALITATIVE)])
        for position, name in enumerate(names)
    ]


def deadline_line(figure: go.Figure, at: float, text: str, *, logarithmic: bool = False) -> None:
    """A dotted line at what is allowed on the x axis, with its words above."""
    figure.add_vline(x=at, line={"color": INK, "width": 1.5, "dash": "dot"})
    figure.add_annotation(
        x=math.log10(at) if logarithmic else at, y=1, yref="paper", yanchor="bottom", text=text, **NOTE
    )


def round_numbers(values: Iterable[float]) -> list[float]:
    """1, 2 and 5 times powers of ten, from the one below the smallest value to the one above the largest: ticks of a
    logarithmic axis."""
    positive = [value for value in values if 0 < value < math.inf]
    if not positive:
        return [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    steps = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]
    first = max(step for step in steps if step <= min(positive))
    return [step for step in steps if first <= step <= max(step for step in steps if step < 2.5 * max(positive))]

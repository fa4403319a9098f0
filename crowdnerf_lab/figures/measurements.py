"""What was measured: tables, training curves, bytes against decibels, milliseconds against budgets."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import plotly.graph_objects as go

from crowdnerf_lab.catalogue.card import ModelCard
from crowdnerf_lab.devices.profile import DeviceProfile
from crowdnerf_lab.figures.style import (
    COLOUR_OF_DEVICE,
    INK,
    NAME_OF_FORMAT,
    SYMBOL_OF_FORMAT,
    TEMPLATE,
    WIDTH,
    colours_of,
)
from crowdnerf_lab.network.view_engine import ViewAccount


@runtime_checkable
class Progress(Protocol):
    """A moment of a training: seconds since it began, and PSNR in dB on held-out views where it was measured then."""

    @property
    def seconds(self) -> float: ...

    @property
    def held_out_psnr(self) -> float | None: ...


@dataclass(frozen=True)
class Table:
    """Rows of named cells, all with the same names, shown as a table by Jupyter and GitHub; numbers to 4 digits."""

    rows: tuple[Mapping[str, Any], ...]

    def _repr_markdown_(self) -> str:
        names = list(self.rows[0]) if self.rows else []
        numeric = [all(isinstance(row[name], int | float) for row in self.rows) for name in names]
        lines = [names, ["---:" if right else ":---" for right in numeric]]
        lines += [[_cell_text(row[name]) for name in names] for row in self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def __repr__(self) -> str:
        return self._repr_markdown_()


def table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Rows with the same names as a table."""
    return Table(tuple(rows))


def training_curve(histories: Mapping[str, Sequence[Progress]], *, title: str = "") -> go.Figure:
    """Held-out PSNR, dB, over seconds of training; one line a training, named at its end."""
    figure = go.Figure()
    for (name, history), colour in zip(histories.items(), colours_of(histories), strict=True):
        measured = [(record.seconds, record.held_out_psnr) for record in history if record.held_out_psnr is not None]
        figure.add_trace(
            go.Scatter(
                x=[seconds for seconds, _ in measured],
                y=[value for _, value in measured],
                mode="lines+markers+text",
                line={"color": colour, "width": 2},
                marker={"size": 5},
                text=[""] * (len(measured) - 1) + [f"  {name} {measured[-1][1]:.1f} dB" if measured else ""],
                textposition="middle right",
                textfont={"color": colour},
                cliponaxis=False,
                name=name,
                hovertemplate="%{x:.1f} s: %{y:.2f} dB<extra>" + name + "</extra>",
                showlegend=False,
            )
        )
    figure.update_layout(template=TEMPLATE, title=title, width=WIDTH, height=360, margin={"r": 220})
    figure.update_xaxes(title="seconds of training", rangemode="tozero")
    figure.update_yaxes(title="held-out PSNR, dB")
    return figure


def rate_distortion(
    cards: Sequence[ModelCard], profiles: Sequence[DeviceProfile], *, teacher: tuple[float, float] | None = None
) -> go.Figure:
    """Quality against the truth, dB, over the size of the download, kB: one symbol a format, one colour a device class.

    A model that serves several classes is drawn as nested symbols. teacher: kilobytes and dB of the field itself.
    """
    classes = {profile.name: profile.device_class for profile in profiles}
    nested: Counter[tuple[float, float | None]] = Counter()
    figure = go.Figure()
    for card in cards:
        place = (card.bytes / 1e3, card.quality.psnr)
        figure.add_trace(
            go.Scatter(
                x=[place[0]],
                y=[place[1]],
                mode="markers",
                marker={
                    "symbol": SYMBOL_OF_FORMAT[card.stored_as],
                    "size": 9 + 6 * nested[place],
                    "color": COLOUR_OF_DEVICE[classes[card.profile]],
                    "line": {"width": 2},
                },
                hovertemplate=f"{card.name}: %{{x:.0f}} kB, %{{y:.2f}} dB<extra></extra>",
                showlegend=False,
            )
        )
        nested[place] += 1
    if teacher is not None:
        figure.add_trace(
            go.Scatter(
                x=[teacher[0]],
                y=[teacher[1]],
                mode="markers+text",
                marker={"symbol": "x", "size": 9, "color": INK},
                text=["the field itself"],
                textposition="bottom center",
                hovertemplate="%{x:.0f} kB, %{y:.2f} dB<extra></extra>",
                showlegend=False,
            )
        )
    _legend(figure, {name: ("circle", colour) for name, colour in _classes_of(cards, classes).items()})
    formats = dict.fromkeys(card.stored_as for card in cards)
    _legend(figure, {NAME_OF_FORMAT[format]: (SYMBOL_OF_FORMAT[format], INK) for format in formats})
    figure.update_layout(template=TEMPLATE, width=WIDTH, height=400, margin={"t": 20})
    figure.update_xaxes(title="download, kB", type="log", dtick="D2")
    figure.update_yaxes(title="held-out PSNR, dB")
    return figure


def latency_bars(cards: Sequence[ModelCard], profiles: Sequence[DeviceProfile]) -> go.Figure:
    """Milliseconds of a frame: a bar to the median, a whisker to the 95th percentile, a tick at the device's budget."""
    known = {profile.name: profile for profile in profiles}
    names = [f"{known[card.profile].title} · {NAME_OF_FORMAT[card.stored_as]}" for card in cards]
    median, p95 = [card.latency.median_ms for card in cards], [card.latency.p95_ms for card in cards]
    figure = go.Figure(
        [
            go.Bar(
                x=median,
                y=names,
                orientation="h",
                marker={"color": [COLOUR_OF_DEVICE[known[card.profile].device_class] for card in cards]},
                error_x={"array": [b - a for a, b in zip(median, p95, strict=True)], "arrayminus": [0] * len(cards)},
                hovertemplate="%{x:.1f} ms<extra></extra>",
                name="median, to 95th percentile",
                showlegend=False,
            ),
            go.Scatter(
                x=[known[card.profile].frame_ms for card in cards],
                y=names,
                mode="markers",
                marker={"symbol": "line-ns-open", "size": 18, "color": INK, "line": {"width": 2}},
                hovertemplate="budget %{x:.1f} ms<extra></extra>",
                name="the device's budget for a frame",
            ),
        ]
    )
    figure.update_layout(
        template=TEMPLATE,
        width=WIDTH,
        height=110 + 26 * len(cards),
        bargap=0.35,
        margin={"t": 40},
        legend={"x": 0.0, "y": 1.0, "yanchor": "bottom", "orientation": "h"},
    )
    figure.update_xaxes(title="ms a frame, measured here", type="log")
    figure.update_yaxes(autorange="reversed", ticks="", automargin=True)
    return figure


def bytes_over_views(accounts: Mapping[str, ViewAccount], *, most: int = 100_000) -> go.Figure:
    """Bytes over the air for a number of views, both logarithmic: one line an inference path, named at its end."""
    views = [round(10 ** (step / 8)) for step in range(round(8 * math.log10(most)) + 1)]
    figure = go.Figure(
        [
            go.Scatter(
                x=views,
                y=[account.total_bytes(count) / 1e6 for count in views],
                mode="lines+text",
                line={"color": colour, "width": 2},
                text=[""] * (len(views) - 1) + [f"  {name}"],
                textposition="middle right",
                textfont={"color": colour},
                cliponaxis=False,
                hovertemplate="%{x} views: %{y:.3g} MB<extra>" + name + "</extra>",
                showlegend=False,
            )
            for (name, account), colour in zip(accounts.items(), colours_of(accounts), strict=True)
        ]
    )
    figure.update_layout(template=TEMPLATE, width=WIDTH, height=360, margin={"t": 20, "r": 200})
    figure.update_xaxes(title="views shown", type="log", dtick=1)
    figure.update_yaxes(title="MB over the air", type="log", dtick=1)
    return figure


def _classes_of(cards: Sequence[ModelCard], classes: Mapping[str, str]) -> dict[str, str]:
    present = {classes[card.profile] for card in cards}
    return {name: colour for name, colour in COLOUR_OF_DEVICE.items() if name in present}


def _legend(figure: go.Figure, entries: Mapping[str, tuple[str, str]]) -> None:
    for name, (symbol, colour) in entries.items():
        marker = {"symbol": symbol, "color": colour, "size": 9, "line": {"width": 2}}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=name, marker=marker))


def _cell_text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|")

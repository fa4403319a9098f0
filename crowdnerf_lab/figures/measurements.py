"""What was measured: tables and training curves."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import plotly.graph_objects as go

from crowdnerf_lab.figures.contrast import as_words
from crowdnerf_lab.figures.style import TEMPLATE, WIDTH, colours_of


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
                textfont={"color": as_words(colour)},
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

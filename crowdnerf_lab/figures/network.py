"""The network in pictures: how a crowd is served, how a service bears a load, and an event that goes on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from crowdnerf_lab.figures.style import (
    ABOVE,
    BLUE,
    COLOUR_OF_DEVICE,
    FAINT,
    GREEN,
    GRID,
    INK,
    NOTE,
    ORANGE,
    TEMPLATE,
    VERMILION,
    WIDTH,
    deadline_line,
    round_numbers,
)
from crowdnerf_lab.network.delivery.simulation import Delivery
from crowdnerf_lab.network.links.latency_account import BUDGET_S
from crowdnerf_lab.network.updates.evening import PublishedVersion

COLOUR_OF_WAY = {"unicast": VERMILION, "edges": ORANGE, "broadcast": BLUE, "peers": GREEN}
"""What carries a crowd's deliveries."""


@dataclass(frozen=True)
class LoadPoint:
    """What a service did under a load. load: of requests a second, or of UEs; p50_ms, p95_ms, p99_ms: times of those
    that were answered; refused: share of those that were told to come again."""

    load: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    refused: float = 0.0


def completion(deliveries: Mapping[str, Delivery], *, deadlines_s: Sequence[float] = (1.0, 10.0)) -> go.Figure:
    """Share of a crowd that has the object, per cent, over seconds since each UE wanted it, logarithmic."""
    figure = go.Figure()
    ways = {name: COLOUR_OF_WAY.get(delivery.way, FAINT) for name, delivery in deliveries.items()}
    for number, (name, delivery) in enumerate(deliveries.items()):
        same = [other for other, each in list(deliveries.items())[:number] if each.way == delivery.way]
        waited = np.sort(delivery.waited[np.isfinite(delivery.waited)])
        shares = np.arange(1, len(waited) + 1) / len(delivery.waited)
        kept = np.unique(np.linspace(0, len(waited) - 1, 400).astype(int))
        figure.add_trace(
            go.Scatter(
                x=waited[kept],
                y=100 * shares[kept],
                mode="lines",
                line={"color": ways[name], "width": 2.5, "dash": ("solid", "dash", "dot")[len(same) % 3]},
                name=f"{name}: {100 * delivery.share_within(deadlines_s[0]):.4g} % within {deadlines_s[0]:g} s",
                hovertemplate="%{y:.1f} % after %{x:.3g} s<extra>" + name + "</extra>",
            )
        )
    for deadline in deadlines_s:
        deadline_line(figure, deadline, f"{deadline:g} s", logarithmic=True)
    ends = [
        float(edge) for delivery in deliveries.values() for edge in np.quantile(delivery.waited, (0, 1), method="lower")
    ]
    ticks = round_numbers([*deadlines_s, *ends])
    receivers = max((len(delivery.waited) for delivery in deliveries.values()), default=0)
    figure.update_layout(
        template=TEMPLATE,
        width=WIDTH,
        height=380 + 21 * len(deliveries),
        margin={"t": 40, "b": 70 + 21 * len(deliveries)},
        legend={"orientation": "v", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
    )
    figure.update_xaxes(title="seconds since a UE wanted it", title_standoff=6, **_logarithmic(ticks))
    figure.update_yaxes(title=f"complete, % of {receivers:,} UEs", range=[0, 103])
    return figure


def update_timeline(
    versions: Sequence[PublishedVersion], *, contributions: Sequence[float] = (), unit_s: float = 60.0
) -> go.Figure:
    """An event that goes on: quality of what UEs are served, dB, over minutes, and photos received until then.

    A dot a version, with its number; a cross where it measured worse and was taken back. contributions: when each photo
    was received, seconds since the event began. unit_s: of the time axis; 60 are minutes, 1 seconds.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.65, 0.35], vertical_spacing=0.08)
    kept = [version for version in versions if not version.withdrawn]
    taken_back = [version for version in versions if version.withdrawn]
    end = max([*(version.seconds for version in versions), *contributions], default=0.0) / unit_s
    served = [(version.seconds / unit_s, version.psnr) for version in kept]
    if served:
        served.append((end, served[-1][1]))
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in served],
            y=[y for _, y in served],
            mode="lines",
            line={"color": COLOUR_OF_DEVICE["server"], "width": 2.5, "shape": "hv"},
            name="served",
            hoverinfo="skip",
        ),
        row=1,
        col=1,
    )
    for group, symbol, colour, name in (
        (kept, "circle", COLOUR_OF_DEVICE["server"], "published"),
        (taken_back, "x", INK, "withdrawn"),
    ):
        if group:
            figure.add_trace(
                go.Scatter(
                    x=[version.seconds / unit_s for version in group],
                    y=[version.psnr for version in group],
                    mode="markers+text",
                    marker={"symbol": symbol, "size": 10, "color": colour},
                    text=[f"v{version.version}" for version in group],
                    textposition="top center" if symbol == "circle" else "bottom center",
                    cliponaxis=False,
                    name=name,
                    hovertemplate="%{text}: %{y:.2f} dB<extra></extra>",
                ),
                row=1,
                col=1,
            )
    photos = sorted(contributions)
    figure.add_trace(
        go.Scatter(
            x=[0.0, *(seconds / unit_s for seconds in photos), end],
            y=[0, *range(1, len(photos) + 1), len(photos)],
            mode="lines",
            line={"color": BLUE, "width": 2, "shape": "hv"},
            fill="tozeroy",
            fillcolor=GRID,
            name="photos",
            showlegend=False,
            hovertemplate="%{y} photos<extra></extra>",
        ),
        row=2,
        col=1,
    )
    psnr = [version.psnr for version in versions] or [0.0]
    room = 0.25 * (max(psnr) - min(psnr) or 1.0)
    figure.update_layout(template=TEMPLATE, width=WIDTH, height=440, margin={"t": 40}, legend=ABOVE)
    figure.update_yaxes(title="held-out PSNR, dB", range=[min(psnr) - room, max(psnr) + room], row=1, col=1)
    figure.update_yaxes(title="photos", rangemode="tozero", row=2, col=1)
    unit = {60.0: "minutes", 1.0: "seconds"}.get(unit_s, f"units of {unit_s:g} s")
    figure.update_xaxes(title=f"{unit} of the event", row=2, col=1)
    return figure


def load_curve(
    points: Sequence[LoadPoint], *, load: str = "requests a second", budget_ms: float | None = 1e3 * BUDGET_S
) -> go.Figure:
    """How a service bears a load: median, 95th and 99th percentile of its answers, ms, and the share that it refuses.

    load: what the points count. budget_ms: a line at what is allowed; None: none.
    """
    ordered = sorted(points, key=lambda point: point.load)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.08)
    colour = COLOUR_OF_DEVICE["server"]
    for name, dash, width in (("p50", "solid", 3.0), ("p95", "dash", 2.0), ("p99", "dot", 2.0)):
        figure.add_trace(
            go.Scatter(
                x=[point.load for point in ordered],
                y=[getattr(point, f"{name}_ms") for point in ordered],
                mode="lines+markers",
                line={"color": colour, "width": width, "dash": dash},
                marker={"size": 6},
                name=name,
                hovertemplate="%{y:.0f} ms<extra>" + name + "</extra>",
            ),
            row=1,
            col=1,
        )
    figure.add_trace(
        go.Bar(
            x=[point.load for point in ordered],
            y=[100 * point.refused for point in ordered],
            marker={"color": INK},
            name="refused",
            showlegend=False,
            hovertemplate="%{y:.1f} % refused<extra></extra>",
        ),
        row=2,
        col=1,
    )
    if budget_ms is not None:
        line = {"color": INK, "width": 1.5, "dash": "dot"}
        figure.add_shape(type="line", xref="x domain", x0=0, x1=1, yref="y", y0=budget_ms, y1=budget_ms, line=line)
        figure.add_annotation(
            x=1,
            xref="x domain",
            xanchor="right",
            y=math.log10(budget_ms),
            yref="y",
            yanchor="bottom",
            text=f"{budget_ms:g} ms",
            **NOTE,
        )
    figure.update_layout(template=TEMPLATE, width=WIDTH, height=440, margin={"t": 40}, legend=ABOVE)
    times = [time for point in ordered for time in (point.p50_ms, point.p99_ms)]
    ticks = round_numbers([*times, *([] if budget_ms is None else [budget_ms])])
    figure.update_yaxes(title="ms to the answer", **_logarithmic(ticks), row=1, col=1)
    most = max([1.0, *(110 * point.refused for point in ordered)])
    figure.update_yaxes(title="refused, %", range=[0, most], row=2, col=1)
    figure.update_xaxes(rangemode="tozero")
    figure.update_xaxes(title=load, row=2, col=1)
    return figure


def _logarithmic(ticks: Sequence[float]) -> dict[str, Any]:
    """An axis that reaches from the first to the last of its ticks."""
    ends = [math.log10(ticks[0]) - 0.03, math.log10(ticks[-1]) + 0.03]
    return {"type": "log", "tickvals": list(ticks), "ticktext": [f"{tick:g}" for tick in ticks], "range": ends}

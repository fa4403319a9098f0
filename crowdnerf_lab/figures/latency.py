"""The latency account in pictures: where a second goes, when a model pays, and how big one may be."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from crowdnerf_lab.figures.contrast import as_words
from crowdnerf_lab.figures.style import (
    ABOVE,
    BLUE,
    FAINT,
    GREEN,
    GRID,
    INK,
    NOTE,
    ORANGE,
    PURPLE,
    SKY,
    TEMPLATE,
    VERMILION,
    WIDTH,
    colours_of,
    deadline_line,
)
from crowdnerf_lab.network.links.latency_account import (
    BUDGET_S,
    STAGES,
    Account,
    InferencePath,
    Stage,
    largest_model,
    views_by_bytes,
    views_by_time,
)
from crowdnerf_lab.network.links.link_profiles import LinkProfile

COLOUR_OF_STAGE: dict[Stage, str] = {
    "uplink": SKY,
    "queue": PURPLE,
    "render": VERMILION,
    "download": BLUE,
    "decode": ORANGE,
    "load": GREEN,
    "frame": INK,
}
"""Blue travels, orange is the network's work, green and ink are the device's."""


def latency_account(accounts: Iterable[Account], *, budget_s: float = BUDGET_S) -> go.Figure:
    """From request to pixels: a bar an account, its stages one after the other, milliseconds; links from the top.

    Where measured and predicted accounts stand together, the predicted ones are pale. A line stands at the budget.
    """
    shown = list(accounts)
    both = len({account.measured for account in shown}) > 1
    rows = [[account.link.title for account in shown], [_row_name(account, both) for account in shown]]
    figure = go.Figure()
    for stage in STAGES:
        if not any(account.of(stage) for account in shown):
            continue
        for predicted in (False, True) if both else (False,):
            members = [account.measured != predicted or not both for account in shown]
            figure.add_trace(
                go.Bar(
                    x=[account.of(stage) if member else 0.0 for account, member in zip(shown, members, strict=True)],
                    y=rows,
                    orientation="h",
                    name=stage,
                    showlegend=not predicted,
                    marker={
                        "color": COLOUR_OF_STAGE[stage],
                        "opacity": 0.45 if predicted else 1.0,
                        "line": {"width": 0},
                    },
                    hovertemplate="%{x:.0f} ms " + stage + "<extra></extra>",
                )
            )
    longest = max([1e3 * budget_s, *(account.total_ms for account in shown)])
    for row, account in enumerate(shown):
        figure.add_annotation(
            x=account.total_ms,
            y=row,
            text=f"{account.total_ms:,.0f} ms",
            xanchor="left",
            xshift=4,
            bgcolor="white",
            borderpad=1,
            **NOTE,
        )
    deadline_line(figure, 1e3 * budget_s, f"{budget_s:g} s")
    figure.update_layout(
        template=TEMPLATE,
        width=WIDTH,
        height=130 + 26 * len(shown),
        barmode="stack",
        bargap=0.3,
        margin={"t": 62, "r": 30, "l": 20},
        legend=ABOVE | {"y": 1.0, "yref": "container", "yanchor": "top", "x": 0.0, "xref": "paper"},
    )
    figure.update_xaxes(title="milliseconds from request to pixels", range=[-0.012 * longest, 1.12 * longest])
    figure.update_yaxes(
        autorange="reversed",
        ticks="outside",
        ticklen=5,
        tickcolor="white",
        automargin=True,
        showdividers=True,
        dividercolor=GRID,
        tickfont={"size": 12},
    )
    return figure


def crossover(paths: Mapping[str, InferencePath], *, link: LinkProfile | None = None, most: int = 100_000) -> go.Figure:
    """When a model pays: MB over the air, or with a link seconds of waiting, for a number of views; both logarithmic.

    One line an inference path, named at its end; a ring where a device's line crosses the network's.
    """
    views = [round(10 ** (step / 8)) for step in range(round(8 * math.log10(most)) + 1)]

    def amount(path: InferencePath, count: int) -> float:
        return path.total_bytes(count) / 1e6 if link is None else path.waiting_ms(count, link) / 1e3

    figure, ends, lowest = go.Figure(), [], math.inf
    for (name, path), colour in zip(paths.items(), colours_of(paths), strict=True):
        amounts = [amount(path, count) for count in views]
        lowest = min([lowest, *amounts])
        figure.add_trace(
            go.Scatter(
                x=views,
                y=amounts,
                mode="lines",
                line={"color": colour, "width": 2.5},
                hovertemplate="%{x} views: %{y:.3g} " + ("MB" if link is None else "s") + f"<extra>{name}</extra>",
                showlegend=False,
            )
        )
        ends.append((math.log10(amounts[-1]), name, colour))
    low = math.log10(max(lowest, 1e-9)) - 0.2
    high = max(place for place, _, _ in ends) + 0.2
    for name, x, y in _crossings(paths, link, most, amount):
        figure.add_trace(
            go.Scatter(
                x=[x],
                y=[y],
                mode="markers",
                marker={"symbol": "circle-open", "size": 11, "color": INK, "line": {"width": 2}},
                hovertemplate=f"{name}: from {x:,.0f} views on<extra></extra>",
                showlegend=False,
            )
        )
        figure.add_annotation(
            x=math.log10(x),
            y=math.log10(y),
            text=f"{x:,.0f} view{'s' * (round(x) != 1)}",
            xanchor="left" if x < 5 else "right",
            xshift=8 if x < 5 else -8,
            yshift=10,
            **NOTE,
        )
    _end_names(figure, ends, low=low, high=high)
    figure.update_layout(template=TEMPLATE, width=WIDTH, height=380, margin={"t": 20, "r": 230})
    figure.update_xaxes(title="views shown", type="log", dtick=1)
    title = "MB over the air" if link is None else f"seconds of waiting, {link.title}"
    figure.update_yaxes(title=title, type="log", dtick=1, range=[low, high])
    return figure


def largest_models(
    links: Iterable[LinkProfile],
    *,
    models: Mapping[str, int] | None = None,
    budgets_s: Sequence[float] = (0.5, 1.0, 2.0),
    device_ms: float = 0.0,
    load_ms_per_mb: float = 0.0,
) -> go.Figure:
    """How big a model may be over each link to show its first picture in time, kB, logarithmic; a shade a budget.

    models: bytes of some, by name: a line at each. device_ms, load_ms_per_mb: as `largest_model` takes them.
    """
    shown = list(links)
    figure = go.Figure()
    for budget, opacity in zip(sorted(budgets_s), np.linspace(0.5, 1.0, len(budgets_s)), strict=True):
        sizes = [
            largest_model(link, budget_s=budget, device_ms=device_ms, load_ms_per_mb=load_ms_per_mb) for link in shown
        ]
        figure.add_trace(
            go.Scatter(
                x=[size / 1e3 if size else None for size in sizes],
                y=[link.title for link in shown],
                mode="markers+text",
                name=f"within {budget:g} s",
                marker={"size": 14, "color": BLUE, "opacity": opacity},
                text=[_kilobytes(size) for size in sizes],
                textposition="top center",
                textfont={"size": 12, "color": INK},
                cliponaxis=False,
                hovertemplate="%{y}: %{x:,.0f} kB" + f" within {budget:g} s<extra></extra>",
            )
        )
    for number, (name, size) in enumerate(sorted((models or {}).items(), key=lambda model: model[1])):
        figure.add_vline(x=size / 1e3, line={"color": FAINT, "dash": "dot", "width": 1}, layer="below")
        figure.add_annotation(
            x=math.log10(size / 1e3),
            y=1,
            yref="paper",
            yanchor="bottom",
            yshift=6 + 16 * (number % 3),
            text=f"{name}, {_kilobytes(size)}",
            **NOTE | {"font": {"size": 12, "color": FAINT}},
        )
    figure.update_layout(
        template=TEMPLATE,
        width=WIDTH,
        height=150 + 62 * len(shown) + (48 if models else 0),
        margin={"t": 80 if models else 30, "b": 90, "r": 40},
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
    )
    figure.update_xaxes(title="largest model, kB", type="log", dtick=1, title_standoff=8)
    figure.update_yaxes(autorange="reversed", ticks="", automargin=True)
    return figure


def _row_name(account: Account, both: bool) -> str:
    name = account.name or account.path
    return f"{name}, {'measured' if account.measured else 'predicted'}" if both else name


def _crossings(
    paths: Mapping[str, InferencePath],
    link: LinkProfile | None,
    most: int,
    amount: Callable[[InferencePath, int], float],
) -> Iterator[tuple[str, float, float]]:
    """Name, views and amount where a device's path becomes better than the network's."""
    for network in (path for path in paths.values() if path.path == "network"):
        for name, device in ((name, path) for name, path in paths.items() if path.path == "device"):
            x = views_by_bytes(device, network) if link is None else views_by_time(device, network, link=link)
            if 1 <= x <= most:
                below, above = amount(network, math.floor(x)), amount(network, math.ceil(x))
                yield name, x, below + (x - math.floor(x)) * (above - below)


def _end_names(figure: go.Figure, ends: Sequence[tuple[float, str, str]], *, low: float, high: float) -> None:
    """Names at the right border, at their line's end or as close below it as the names above leave room."""
    above = math.inf
    for place, name, colour in sorted(ends, reverse=True):
        y = min((place - low) / (high - low), above - 0.07)
        above = y
        figure.add_annotation(
            x=1.01,
            y=y,
            xref="paper",
            yref="paper",
            text=name,
            xanchor="left",
            **NOTE | {"font": {"size": 12, "color": as_words(colour)}},
        )


def _kilobytes(size: int) -> str:
    if not size:
        return ""
    return f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"

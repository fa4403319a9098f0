"""A ladder of models in pictures: bytes, decibels, milliseconds; the front of what is worth sending; proxies open."""

import math
from collections.abc import Iterable, Mapping, Sequence

import plotly.graph_objects as go

from crowdnerf_lab.catalogue.card import ModelCard
from crowdnerf_lab.catalogue.limits import RUNTIME_OF
from crowdnerf_lab.devices.cost import Proxy
from crowdnerf_lab.devices.predictions import proxy_of, work_of_card
from crowdnerf_lab.devices.profile import DeviceProfile
from crowdnerf_lab.figures.contrast import as_words
from crowdnerf_lab.figures.style import (
    COLOUR_OF_DEVICE,
    FAINT,
    GRID,
    INK,
    NAME_OF_CODING,
    NAME_OF_FAMILY,
    NAME_OF_FORMAT,
    QUALITATIVE,
    SYMBOL_OF_FAMILY,
    SYMBOL_OF_FORMAT,
    TEMPLATE,
    VEIL,
    WIDTH,
)

BUDGETS_MS = (16.7, 33.3, 100.0)
"""Frame budgets for which a front is drawn: 60, 30 and 10 frames a second."""
LETTER, LINE = 0.0085, 0.045
"""Width and height of small type, as fractions of a figure's axes."""


def pareto(
    cards: Sequence[ModelCard], *, teacher_psnr: float | None = None, budgets_ms: Sequence[float] = BUDGETS_MS
) -> go.Figure:
    """Quality against the truth over the size of the download, with the time of a frame as colour.

    A symbol a family; one step line a frame budget: the best PSNR that a file of so many kB buys within it, measured on
    the cards' machine. Models on a front are named. teacher_psnr: of the field itself, dB.
    """
    shown = [card for card in cards if card.quality.psnr is not None]
    times = [card.latency.median_ms for card in shown] or [1.0]
    low, high = math.log10(min(times)), math.log10(max(max(times), min(times) * 1.01))
    figure = go.Figure()
    right = max((card.bytes / 1e3 for card in shown), default=1.0) * 1.6
    fronts = {budget: front(shown, max_ms=budget) for budget in sorted(budgets_ms)}
    for width, (budget, best) in zip((1.2, 2.0, 3.0, 4.0), fronts.items(), strict=False):
        figure.add_trace(_step_line(best, right, f"best within {budget:g} ms a frame", width))
    for family in dict.fromkeys(card.family or card.kind for card in shown):
        members = [card for card in shown if (card.family or card.kind) == family]
        figure.add_trace(
            go.Scatter(
                x=[card.bytes / 1e3 for card in members],
                y=[card.quality.psnr for card in members],
                mode="markers",
                showlegend=False,
                marker={
                    "symbol": SYMBOL_OF_FAMILY.get(family, "star"),
                    "size": 11,
                    "color": [math.log10(card.latency.median_ms) for card in members],
                    "cmin": low,
                    "cmax": high,
                    "colorscale": "Viridis_r",
                    "showscale": family == (shown[0].family or shown[0].kind),
                    "colorbar": _milliseconds_bar(low, high),
                    "line": {"width": 1, "color": "white"},
                },
                text=[_described(card) for card in members],
                hovertemplate="%{text}: %{x:.0f} kB, %{y:.2f} dB<extra></extra>",
            )
        )
    if teacher_psnr is not None:
        figure.add_hline(y=teacher_psnr, line={"color": FAINT, "dash": "dot", "width": 1})
        figure.add_annotation(
            x=0, y=teacher_psnr, xref="paper", text=f"the field itself, {teacher_psnr:.1f} dB", **_NOTE
        )
    families = dict.fromkeys(card.family or card.kind for card in shown)
    _legend(figure, {NAME_OF_FAMILY.get(each, each): (SYMBOL_OF_FAMILY.get(each, "star"), INK) for each in families})
    decibels = [card.quality.psnr or 0.0 for card in shown] + ([] if teacher_psnr is None else [teacher_psnr])
    y_range = _range(decibels)
    worth = LINE * (y_range[1] - y_range[0])
    named = list({card.name: card for best in fronts.values() for card in _climbing(best, by=worth)}.values())
    widest = max((card.width for card in shown), default=0)
    names = {
        card.name: _form(card) + (f", {card.width}×{card.height}" if card.width < widest else "") for card in named
    }
    _label(
        figure,
        named,
        names,
        taken=shown,
        x_range=_range([math.log10(card.bytes / 1e3) for card in shown]),
        y_range=y_range,
    )
    figure.update_layout(
        template=TEMPLATE,
        width=WIDTH,
        height=520,
        margin={"t": 60, "r": 110},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
    )
    _kilobytes(figure, [card.bytes for card in shown])
    figure.update_yaxes(title="held-out PSNR, dB", range=y_range)
    return figure


def front(cards: Iterable[ModelCard], *, max_ms: float = math.inf) -> list[ModelCard]:
    """Of models within a frame budget those that no smaller one equals in PSNR, the smallest file first."""
    best: list[ModelCard] = []
    allowed = [card for card in cards if card.latency.median_ms <= max_ms and card.quality.psnr is not None]
    for card in sorted(allowed, key=lambda card: (card.bytes, -(card.quality.psnr or 0.0))):
        if not best or (card.quality.psnr or 0.0) > (best[-1].quality.psnr or 0.0):
            best.append(card)
    return best


def rate_distortion(cards: Sequence[ModelCard], *, teacher: tuple[float, float] | None = None) -> go.Figure:
    """What formats and codings cost: held-out PSNR over kB, one colour a model, one symbol a format.

    A thin line leads from the file as it runs to the file as it travels. teacher: kilobytes and dB of the field itself.
    """
    shown = [card for card in cards if card.quality.psnr is not None]
    colours = dict(
        zip(dict.fromkeys(map(model_name, shown)), QUALITATIVE * (1 + len(shown) // len(QUALITATIVE)), strict=False)
    )
    figure = go.Figure()
    for card in shown:
        colour, coded = colours[model_name(card)], card.bytes_uncoded not in (None, card.bytes)
        if coded and card.bytes_uncoded is not None:
            figure.add_trace(
                go.Scatter(
                    x=[card.bytes_uncoded / 1e3, card.bytes / 1e3],
                    y=[card.steps[-2].psnr if len(card.steps) > 1 else card.quality.psnr, card.quality.psnr],
                    mode="lines",
                    line={"color": colour, "width": 1},
                    opacity=0.5,
                    hoverinfo="skip",
                    showlegend=False,
                )
            )
        symbol = SYMBOL_OF_FORMAT[card.stored_as]
        figure.add_trace(
            go.Scatter(
                x=[card.bytes / 1e3],
                y=[card.quality.psnr],
                mode="markers",
                marker={
                    "symbol": symbol.removesuffix("-open") if coded else symbol,
                    "size": 10,
                    "color": colour,
                    "line": {"width": 2, "color": colour},
                },
                hovertemplate=f"{_described(card)}: %{{x:.0f}} kB, %{{y:.2f}} dB<extra></extra>",
                showlegend=False,
            )
        )
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
    _legend(figure, {name: ("circle", colour) for name, colour in colours.items()})
    formats = dict.fromkeys(card.stored_as for card in shown)
    _legend(figure, {NAME_OF_FORMAT[each]: (SYMBOL_OF_FORMAT[each], INK) for each in formats})
    if any(card.coding != "none" for card in shown):
        _legend(figure, {"filled: coded for the air": ("circle", FAINT)})
    figure.update_layout(template=TEMPLATE, width=WIDTH, height=440, margin={"t": 20})
    _kilobytes(figure, [card.bytes for card in shown])
    figure.update_yaxes(title="held-out PSNR, dB")
    return figure


def progressive_curves(cards: Sequence[ModelCard]) -> go.Figure:
    """What the beginning of each progressive file shows, dB, over the kB that have arrived; named at its end."""
    figure = go.Figure()
    progressive = [card for card in cards if any(layer.psnr is not None for layer in card.layers)]
    ends = []
    for card, colour in zip(progressive, QUALITATIVE * (1 + len(progressive) // len(QUALITATIVE)), strict=False):
        points = [(layer.bytes / 1e3, layer.psnr) for layer in card.layers if layer.psnr is not None]
        figure.add_trace(
            go.Scatter(
                x=[kilobytes for kilobytes, _ in points],
                y=[psnr for _, psnr in points],
                mode="lines+markers",
                line={"color": colour, "width": 2, "shape": "hv"},
                marker={"size": 7},
                name=_described(card),
                hovertemplate="%{x:.0f} kB: %{y:.2f} dB<extra>" + _described(card) + "</extra>",
                showlegend=False,
            )
        )
        ends.append((points[-1][1], short_name(card), colour))
    y_range = _range([layer.psnr for card in progressive for layer in card.layers if layer.psnr is not None])
    _end_labels(figure, ends, y_range=y_range)
    figure.update_yaxes(range=y_range)
    figure.update_layout(template=TEMPLATE, width=WIDTH, height=420, margin={"t": 20, "r": 300})
    _kilobytes(figure, [layer.bytes for card in progressive for layer in card.layers])
    figure.update_xaxes(title="arrived, kB")
    figure.update_yaxes(title="held-out PSNR of what has arrived, dB")
    return figure


def latency_bars(cards: Sequence[ModelCard], profiles: Sequence[DeviceProfile] = ()) -> go.Figure:
    """Milliseconds of a frame: a bar to the median measured here, a whisker to the 95th percentile.

    profiles: devices that were not measured: an open symbol at the proxy that their roofline gives, where they compute
    in what the model needs; a dotted line at each frame budget.
    """
    rows = list({card.name: card for card in cards}.values())
    names = [f"{short_name(card)}, {card.width}×{card.height}" for card in rows]
    median, p95 = [card.latency.median_ms for card in rows], [card.latency.p95_ms for card in rows]
    figure = go.Figure(
        go.Bar(
            x=median,
            y=names,
            orientation="h",
            marker={"color": GRID, "line": {"color": FAINT, "width": 1}},
            error_x={
                "array": [max(b - a, 0) for a, b in zip(median, p95, strict=True)],
                "arrayminus": [0] * len(rows),
                "color": FAINT,
            },
            hovertemplate="%{x:.1f} ms, measured here<extra></extra>",
            name="measured here: median, 95 %",
        )
    )
    entries = 1
    for number, profile in enumerate(profiles):
        proxies = [
            (name, proxy) for name, card in zip(names, rows, strict=True) if (proxy := card_proxy(card, profile))
        ]
        if proxies:
            entries += 1
            figure.add_trace(
                go.Scatter(
                    x=[proxy.ms for _, proxy in proxies],
                    y=[name for name, _ in proxies],
                    mode="markers",
                    marker={
                        "symbol": OPEN_SYMBOLS[number % len(OPEN_SYMBOLS)],
                        "size": 10,
                        "color": COLOUR_OF_DEVICE[profile.device_class],
                        "line": {"width": 2},
                    },
                    text=[str(proxy) for _, proxy in proxies],
                    hovertemplate="%{text}<extra></extra>",
                    name=f"{profile.title} (proxy)",
                )
            )
    for budget in sorted({profile.frame_ms for profile in profiles}):
        figure.add_vline(x=budget, line={"color": INK, "dash": "dot", "width": 1})
        figure.add_annotation(x=math.log10(budget), y=1, yref="paper", text=f"{budget:g} ms", **_NOTE)
    bars, below = 34 * len(rows) + 20, 64
    legend_lines = math.ceil(entries / LEGEND_COLUMNS)
    left = 12 + 7 * max(map(len, names), default=0)
    figure.update_layout(
        template=TEMPLATE,
        width=WIDTH,
        height=30 + bars + below + 22 * legend_lines,
        bargap=0.35,
        # A legend below the bars would take its width from them if margins could grow.
        margin={"t": 30, "b": below + 22 * legend_lines, "l": left, "r": 40, "autoexpand": False},
        legend={
            "x": -left / (WIDTH - left - 40),
            "y": -below / bars,
            "yanchor": "top",
            "orientation": "h",
            "entrywidth": WIDTH / LEGEND_COLUMNS - 60,
            "font": {"size": 12},
        },
    )
    figure.update_xaxes(
        title="ms a frame" + (": bars measured here, open symbols proxies" if profiles else ""),
        type="log",
        dtick=1,
        title_standoff=14,
    )
    figure.update_yaxes(autorange="reversed", ticks="")
    return figure


LEGEND_COLUMNS = 3
OPEN_SYMBOLS = (
    "circle-open",
    "square-open",
    "diamond-open",
    "triangle-up-open",
    "hexagon-open",
    "star-open",
    "x-open",
    "pentagon-open",
)
_NOTE = {"showarrow": False, "font": {"size": 12, "color": FAINT}, "xanchor": "left", "yanchor": "bottom"}


def card_proxy(card: ModelCard, profile: DeviceProfile) -> Proxy | None:
    """The roofline's estimate for a device that runs and computes what the model needs; else None."""
    if RUNTIME_OF[card.kind] not in profile.runtimes or card.computes_in not in profile.precisions:
        return None
    return proxy_of(work_of_card(card), profile, kind=card.kind, precision=card.computes_in)


def model_name(card: ModelCard) -> str:
    """Family and size, as the ladder names them."""
    family = card.family or card.kind
    size = card.name.partition(f"{family}.")[2].partition(".")[0] if card.family else ""
    return f"{NAME_OF_FAMILY.get(family, family)} {size.replace('-cell', ' ×')}".strip()


def short_name(card: ModelCard) -> str:
    """Model, format and coding in a few words."""
    return " · ".join(part for part in (_form(card), NAME_OF_CODING[card.coding]) if part)


def _form(card: ModelCard) -> str:
    """Model and format."""
    return model_name(card) + (f" · {NAME_OF_FORMAT[card.stored_as]}" if card.stored_as != "baked" else "")


def _climbing(best: Iterable[ModelCard], *, by: float) -> list[ModelCard]:
    """Of a front those that gain at least so many decibels over the last one taken."""
    taken: list[ModelCard] = []
    for card in best:
        if not taken or (card.quality.psnr or 0.0) >= (taken[-1].quality.psnr or 0.0) + by:
            taken.append(card)
    return taken


def _described(card: ModelCard) -> str:
    return f"{short_name(card)}, {card.width}×{card.height}, {card.latency.median_ms:.1f} ms"


def _step_line(best: Sequence[ModelCard], right: float, name: str, width: float) -> go.Scatter:
    kilobytes = [card.bytes / 1e3 for card in best]
    psnr = [card.quality.psnr for card in best]
    return go.Scatter(
        x=[*kilobytes, right] if best else [None],
        y=[*psnr, psnr[-1]] if best else [None],
        mode="lines",
        line={"color": FAINT, "width": width, "shape": "hv"},
        name=name if best else f"{name}: none",
        hoverinfo="skip",
    )


def _milliseconds_bar(low: float, high: float) -> dict[str, object]:
    steps = [s * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for s in (1, 2, 5)]
    ticks = [step for step in steps if low <= math.log10(step) <= high]
    return {
        "title": {"text": "ms a frame", "side": "right"},
        "tickvals": [math.log10(tick) for tick in ticks],
        "ticktext": [f"{tick:g}" for tick in ticks],
        "thickness": 12,
        "len": 0.9,
    }


def _label(
    figure: go.Figure,
    cards: Sequence[ModelCard],
    names: Mapping[str, str],
    *,
    taken: Sequence[ModelCard],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> None:
    """Name models, the best first, where no earlier name and none of the models `taken` is in the way."""

    def place(card: ModelCard) -> tuple[float, float]:
        x, y = math.log10(card.bytes / 1e3), card.quality.psnr or 0.0
        return (x - x_range[0]) / (x_range[1] - x_range[0]), (y - y_range[0]) / (y_range[1] - y_range[0])

    # What is occupied: left, right, bottom and top, as fractions of the axes.
    occupied = [(x - LETTER, x + LETTER, y - LINE / 3, y + LINE / 3) for x, y in map(place, taken)]
    for card in sorted(cards, key=lambda card: -(card.quality.psnr or 0.0)):
        x, y = place(card)
        length = LETTER * len(names[card.name])
        for right, above in ((x <= 0.5, True), (x > 0.5, True), (True, False), (False, False)):
            left = x if right else x - length
            bottom = y + LINE / 3 if above else y - 4 * LINE / 3
            box = (left, left + length, bottom, bottom + LINE)
            if left >= 0 and left + length <= 1 and not any(_overlap(box, other) for other in occupied):
                occupied.append(box)
                figure.add_annotation(
                    x=math.log10(card.bytes / 1e3),
                    y=card.quality.psnr,
                    text=names[card.name],
                    showarrow=False,
                    xanchor="left" if right else "right",
                    yanchor="bottom" if above else "top",
                    yshift=5 if above else -5,
                    bgcolor=VEIL,
                    borderpad=0,
                    font={"size": 11, "color": INK},
                )
                break


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    """Whether two boxes (left, right, bottom, top) have a point in common."""
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1)


def _end_labels(figure: go.Figure, ends: Sequence[tuple[float, str, str]], *, y_range: tuple[float, float]) -> None:
    """Names at the right border, at their line's end or as close below it as the names above leave room."""
    ordered = sorted(ends, reverse=True)
    low, high = y_range
    above = math.inf
    for psnr, name, colour in ordered:
        place = min((psnr - low) / (high - low), above - LINE)
        above = place
        figure.add_annotation(
            x=1.01,
            y=place,
            xref="paper",
            yref="paper",
            text=f"{name} {psnr:.1f} dB",
            showarrow=False,
            xanchor="left",
            font={"size": 12, "color": as_words(colour)},
        )


def _kilobytes(figure: go.Figure, sizes: Sequence[int]) -> None:
    low, high = _range([math.log10(size / 1e3) for size in sizes])
    digits = (1, 2, 5) if high - low > 1.2 else (1, 1.5, 2, 3, 4, 5, 7)
    ticks = [digit * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for digit in digits]
    shown = [tick for tick in ticks if low <= math.log10(tick) <= high]
    figure.update_xaxes(
        title="download, kB",
        type="log",
        range=[low, high],
        tickvals=shown,
        ticktext=[f"{tick:,.0f}" if tick >= 1 else f"{tick:g}" for tick in shown],
    )


def _legend(figure: go.Figure, entries: dict[str, tuple[str, str]]) -> None:
    for name, (symbol, colour) in entries.items():
        marker = {"symbol": symbol, "color": colour, "size": 9, "line": {"width": 2}}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=name, marker=marker))

"""The latency account: from a UE's request to pixels, by stage, when the device renders and when the network does.

    uplink    the request travels; a new connection's handshake; for a model also the question which one
    queue     the request waits at the service
    render    the network draws the view and encodes it
    download  the view, or the model, travels
    decode    the picture is decoded
    load      the model is verified, decoded and loaded
    frame     the device draws

An `InferencePath` says what a path takes before a link is chosen; with a link it predicts an `Account`. The same
accounts are filled from what was measured: `account_of_view`, `account_of_model`. Times are milliseconds, sizes bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal, get_args

from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.card import ModelCard
from crowdnerf_lab.catalogue.limits import frame_ms
from crowdnerf_lab.network.links.link_profiles import LinkProfile
from crowdnerf_lab.network.links.transfers import bytes_within, transfer_ms
from crowdnerf_lab.network.views.view_codecs import EncodedView

Path = Literal["device", "network"]
Stage = Literal["uplink", "queue", "render", "download", "decode", "load", "frame"]
STAGES: tuple[Stage, ...] = get_args(Stage)
BUDGET_S = 1.0
"""From request to pixels, as the use case allows."""
REQUEST_BYTES = 700
"""Of a request with its headers and token; a pose or a capability is most of the rest."""
CHOICE_BYTES = 6_200
"""Of the answer to models:select: the card, with its probe views, is most of it."""


class AccountError(ValueError):
    """An account that does not add up; the message names the stage and the value."""


@dataclass(frozen=True)
class Account:
    """From one request to its pixels over a link, by stage. bytes: that came down. measured: or predicted. name: of the
    model or of what renders."""

    path: Path
    link: LinkProfile
    milliseconds: Mapping[Stage, float]
    bytes: int
    measured: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        for stage, value in self.milliseconds.items():
            if stage not in STAGES or not 0 <= value < math.inf:
                raise AccountError(f"stage {stage!r} took {value} ms; stages are {', '.join(STAGES)}, times 0 or more")

    @property
    def total_ms(self) -> float:
        return sum(self.milliseconds.values())

    def of(self, stage: Stage) -> float:
        """Milliseconds of a stage; 0 where the path has none."""
        return self.milliseconds.get(stage, 0.0)


@dataclass(frozen=True)
class InferencePath:
    """What one path of inference takes. bytes_once: of the model; bytes_per_view: of a picture. request_bytes: of every
    request; choice_bytes: of the network's answer which model to fetch. queue_ms, render_ms (with encoding): at the
    service, of a request. decode_ms: of a picture. load_ms: until the model can draw; frame_ms: of a frame on the
    device, the first one too. name: of the model or of what renders.
    """

    path: Path
    bytes_once: int = 0
    bytes_per_view: int = 0
    request_bytes: int = REQUEST_BYTES
    choice_bytes: int = 0
    queue_ms: float = 0.0
    render_ms: float = 0.0
    decode_ms: float = 0.0
    load_ms: float = 0.0
    frame_ms: float = 0.0
    name: str = ""

    def total_bytes(self, views: int) -> int:
        """Bytes that come down for so many views."""
        return self.bytes_once + self.choice_bytes + views * self.bytes_per_view

    def first_pixels(self, link: LinkProfile, *, connected: bool = False) -> Account:
        """From the first request to the first picture. connected: over a connection that has carried much before."""
        asking = transfer_ms(link, self.request_bytes, direction="up", connected=True)
        uplink = asking + (0.0 if connected else link.rtt_ms)
        if self.choice_bytes:
            uplink += transfer_ms(link, self.choice_bytes, connected=True) + asking
        size = self.bytes_once + self.bytes_per_view
        return self._account(link, uplink, transfer_ms(link, size, connected=connected), size, load_ms=self.load_ms)

    def next_pixels(self, link: LinkProfile) -> Account:
        """From a new pose to its picture, once the first has been shown."""
        if not self.bytes_per_view:
            return Account(self.path, link, {"frame": self.frame_ms}, 0, name=self.name)
        uplink = transfer_ms(link, self.request_bytes, direction="up", connected=True)
        download = transfer_ms(link, self.bytes_per_view, connected=True)
        return self._account(link, uplink, download, self.bytes_per_view)

    def waiting_ms(self, views: int, link: LinkProfile) -> float:
        """Time spent waiting for so many views in turn, asked for one after the other."""
        first, following = self.first_pixels(link).total_ms, self.next_pixels(link).total_ms
        return first + (views - 1) * following if views else 0.0

    def _account(
        self, link: LinkProfile, uplink: float, download: float, size: int, *, load_ms: float = 0.0
    ) -> Account:
        times: dict[Stage, float] = {
            "uplink": uplink,
            "queue": self.queue_ms,
            "render": self.render_ms,
            "download": download,
            "decode": self.decode_ms,
            "load": load_ms,
            "frame": self.frame_ms,
        }
        return Account(self.path, link, {stage: value for stage, value in times.items() if value}, size, name=self.name)


def device_path(
    card: ModelCard, *, capability: Capability | None = None, first_layer: bool = False, queue_ms: float = 0.0
) -> InferencePath:
    """The path of downloading this model and drawing with it, by its card.

    capability: of the UE; None: the card's own machine. first_layer: show the first layer of a progressive file, whose
    loading takes its share of the whole's. queue_ms: at the service.
    """
    frame = card.latency.median_ms if capability is None else frame_ms(card, capability)
    loading = max(0.0, (card.cold_start_ms or 0.0) - card.latency.median_ms) * frame / card.latency.median_ms
    size = card.layers[0].bytes if first_layer and card.layers else card.bytes
    return InferencePath(
        "device",
        bytes_once=size,
        choice_bytes=CHOICE_BYTES,
        queue_ms=queue_ms,
        load_ms=loading * size / card.bytes,
        frame_ms=frame,
        name=card.name,
    )


def network_path(views: Sequence[EncodedView], *, decode_ms: float, queue_ms: float = 0.0) -> InferencePath:
    """The path of asking for views, by some that were rendered: their mean size, and the median time they took."""
    if not views:
        raise AccountError("no views; render some to know their size")
    return InferencePath(
        "network",
        bytes_per_view=round(fmean(len(view.content) for view in views)),
        queue_ms=queue_ms,
        render_ms=median(view.render_ms + view.encode_ms for view in views),
        decode_ms=decode_ms,
    )


def views_by_bytes(device: InferencePath, network: InferencePath) -> float:
    """Number of views from which sending the model takes fewer bytes than sending views; infinite if it never does."""
    saved = network.bytes_per_view - device.bytes_per_view
    return _worth_it_from(device.total_bytes(0) - network.total_bytes(0), saved)


def views_by_time(device: InferencePath, network: InferencePath, *, link: LinkProfile) -> float:
    """Number of views from which a UE has waited less, all in all, for the model and its frames than for the network's
    views; infinite if it never does."""
    of_device, of_network = (path.next_pixels(link).total_ms for path in (device, network))
    extra = device.first_pixels(link).total_ms - of_device - (network.first_pixels(link).total_ms - of_network)
    return _worth_it_from(extra, of_network - of_device)


def largest_model(
    link: LinkProfile,
    *,
    budget_s: float = BUDGET_S,
    device_ms: float = 0.0,
    load_ms_per_mb: float = 0.0,
    queue_ms: float = 0.0,
    connected: bool = False,
) -> int:
    """Bytes that a model may have to show its first picture within a budget over this link; 0: none does.

    device_ms: of loading and drawing, whatever the size; load_ms_per_mb: of loading, for each 10^6 bytes.
    """
    path = InferencePath("device", choice_bytes=CHOICE_BYTES, queue_ms=queue_ms)
    before = path.first_pixels(link, connected=connected)
    left = 1e3 * budget_s - before.of("uplink") - queue_ms - device_ms
    return bytes_within(link, left, connected=connected, ms_per_mb=load_ms_per_mb)


def account_of_view(
    milliseconds: Mapping[str, float], link: LinkProfile, *, bytes: int, connected: bool = True, name: str = ""
) -> Account:
    """The account of a view that the network sent, measured by the UE, as its `View.milliseconds` says it.

    milliseconds: `request`, from asking to the last byte; of it the service says (Server-Timing) `queue`, `render` and
    `encode`; `decode`. A UE's clock cannot tell the way up from the way down: uplink is what the link takes for it, and
    for the handshake of a connection that was not there (`connected`).
    """
    queue, render = milliseconds.get("queue", 0.0), milliseconds.get("render", 0.0) + milliseconds.get("encode", 0.0)
    uplink, download = _ways(milliseconds["request"] - queue - render, link, handshake=not connected)
    times: dict[Stage, float] = {"uplink": uplink, "queue": queue, "render": render, "download": download}
    times["decode"] = milliseconds.get("decode", 0.0)
    return Account("network", link, times, bytes, measured=True, name=name)


def account_of_model(milliseconds: Mapping[str, float], link: LinkProfile, *, bytes: int, name: str = "") -> Account:
    """The account of a model that a UE fetched and drew with, measured by the UE.

    milliseconds: `select`, asking which model, and its answer; `file`, from asking for the file to its last byte, of
    which the way up is told apart as in `account_of_view`; `load`; `frame`.
    """
    uplink, download = _ways(milliseconds["file"], link)
    times: dict[Stage, float] = {"uplink": milliseconds["select"] + uplink, "download": download}
    times |= {"load": milliseconds["load"], "frame": milliseconds["frame"]}
    return Account("device", link, times, bytes, measured=True, name=name)


def _ways(travelling: float, link: LinkProfile, *, handshake: bool = False) -> tuple[float, float]:
    """What a request and its answer spent on the way, as the way up and the way down, ms."""
    up = transfer_ms(link, REQUEST_BYTES, direction="up", connected=True) + (link.rtt_ms if handshake else 0.0)
    travelling = max(0.0, travelling)
    return min(travelling, up), max(0.0, travelling - up)


def _worth_it_from(extra: float, saved: float) -> float:
    """From how many on a saving each time outweighs what it takes extra at first."""
    if extra <= 0 <= saved:
        return 0.0
    return extra / saved if saved > 0 and extra > 0 else math.inf

"""The browser UE: the reader's own browser downloads a model, draws by itself, and stands beside the network's view.

    cn.widgets.ue(bench)                           the kernel is the network
    cn.widgets.ue(cn.open_artefact(folder))        with one model to choose from
    cn.widgets.ue(service, event="concert")        a service is the network, the kernel hands on

What the browser asks comes as custom messages {id, kind, ...}; each is answered by one {id, answer} with binary
buffers, or {id, problem} in words. Kinds: event; model, probe (name); runtime; view (camera, encoding). A message
{kind: "report"} is what the page measured; it becomes the trait `measured`.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.network.views.view_codecs import decode_view
from crowdnerf_lab.widgets.built import RUNTIME, built_file
from crowdnerf_lab.widgets.ue_networks import BrowserUEError, UENetwork, network_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from crowdnerf_lab.fields.baked import BakedField
    from crowdnerf_lab.fields.field import RadianceField
    from crowdnerf_lab.network.serving import RunningService
    from crowdnerf_lab.workbench import Workbench

__all__ = ["BrowserUE", "BrowserUEError", "ue"]
log = logging.getLogger(__name__)

Answer = tuple[Mapping[str, Any], list[bytes]]


class BrowserUE(anywidget.AnyWidget):
    """The reader's browser as a UE. Made by `ue`.

    measured: what the page reported last: mode, path, reason, model; of `device` and `network` each pictures, ms,
    median_ms, psnr (dB against a lossless view of the network); first_by and milestones_ms (since the cell's output
    appeared); model_bytes, bytes; battery in [0, 1]; capability and findings. Empty before it has drawn.
    """

    _esm = built_file("ue_widget.js")
    _css = built_file("ue_widget.css")
    measured = traitlets.Dict()

    def __init__(self, network: UENetwork) -> None:
        super().__init__()
        self.network = network
        # Of their own: a view must not wait until a field has been unpacked.
        self._views = ThreadPoolExecutor(1, thread_name_prefix="views")
        self._models = ThreadPoolExecutor(1, thread_name_prefix="models")
        self.on_msg(self._receive)

    def close(self) -> None:
        """Answer no more."""
        for workers in (self._views, self._models):
            workers.shutdown(wait=False, cancel_futures=True)
        self.network.close()
        super().close()

    def still(self) -> "go.Figure":
        """A figure that stays where no browser draws: the network's view of the first model's probe, and what this
        machine's processor draws of it with the model that the browser used (or the best that it could)."""
        from crowdnerf_lab.figures.pictures import (
            image_strip,
        )  # late: it loads torch, and a page wants its first picture

        cards = {card["name"]: card for card in self.network.event()["cards"]}
        card = cards.get(self.measured.get("model") or "") or max(cards.values(), key=_psnr)
        document = probe_view(card)
        network = decode_view(self.network.view(document | {"format": "png"}))
        pictures = {"network": network}
        notes = {}
        if (drawn := self.network.drawn_locally(card["name"], document)) is not None:
            name = f"device: {card['name'].partition('.')[2] or card['name']}"
            pictures[name], notes[name] = drawn, _cost(card, self.measured)
        return image_strip(pictures, truth=network, notes=notes, columns=2)

    def _receive(self, _widget: anywidget.AnyWidget, message: Any, _buffers: list[memoryview]) -> None:
        """A message from the page; it is no part of this program, so anything may be in it."""
        if not isinstance(message, dict):
            return
        if message.get("kind") == "report":
            if isinstance(report := message.get("report"), dict):
                self.measured = report
            return
        workers = self._views if message.get("kind") == "view" else self._models
        workers.submit(self._answer, message)

    def _answer(self, message: dict[str, Any]) -> None:
        """Answer one question, from a thread of its own."""
        try:
            answer, buffers = self.answer(message)
        except (ValueError, OSError, KeyError, TypeError) as error:
            log.info("a browser UE asked for %r: %s", message.get("kind"), error)
            self.send({"id": message.get("id"), "problem": str(error) or repr(error)})
        else:
            self.send({"id": message.get("id"), "answer": answer}, buffers)

    def answer(self, message: Mapping[str, Any]) -> Answer:
        """What a question of the page is answered. Raises BrowserUEError, ViewError, or what the network raises."""
        match message.get("kind"):
            case "event":
                return self.network.event(), []
            case "model":
                return {}, [self.network.model(str(message["name"]))]
            case "probe":
                return {}, [self.network.probe(str(message["name"]))]
            case "runtime":
                return {}, [built_file(RUNTIME).read_bytes()]
            case "view":
                view = self.network.view({**message["camera"], **message["encoding"]})
                about = ("media_type", "width", "height", "render_ms", "encode_ms")
                return {name: getattr(view, name) for name in about}, [view.content]
            case other:
                raise BrowserUEError(f"a browser UE asks for {other!r:.80}, which there is not; run the cell again")


def ue(
    source: "Workbench | RunningService | Artefact | Sequence[Artefact] | Path | str",
    *,
    event: str = "concert",
    field: "RadianceField | BakedField | None" = None,
    join_code: str | None = None,
) -> BrowserUE:
    """The reader's browser as a UE of an event.

    source: a workbench or artefacts (one, several, or a folder of them), with the kernel as the network; or a service
    or its URL. event: its name. field: what the kernel renders the network's views from (default: the best baked field
    among the artefacts). join_code: where the service's event wants one. Raises BrowserUEError.
    """
    return BrowserUE(network_of(source, event=event, field=field, join_code=join_code))


def probe_view(card: Mapping[str, Any]) -> dict[str, Any]:
    """The first probe of a card as the view that a UE asks for."""
    probe = card["probes"][0]
    return {
        "camera_to_world": probe["camera_to_world"],
        "focal": probe["focal"],
        "centre": probe["centre"],
        "width": card["width"],
        "height": card["height"],
    }


def _psnr(card: Mapping[str, Any]) -> float:
    found = card["quality"]["psnr"]
    return card["probe_psnr"] if found is None else found


def _cost(card: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Milliseconds and bytes: those of the reader's browser where it has drawn, else those of the card."""
    in_browser = measured.get("device", {}).get("median_ms") if measured.get("model") == card["name"] else None
    if in_browser is not None:
        return f"{in_browser:.0f} ms in the browser, {measured['model_bytes'] / 1e6:.2f} MB"
    return f"{card['latency']['median_ms']:.0f} ms on {card['latency']['machine']}, {card['bytes'] / 1e6:.2f} MB"

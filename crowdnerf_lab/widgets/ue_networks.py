"""The network that a browser UE in a notebook talks to: played by the kernel, or a service that runs.

Both kinds of network answer the same questions, from threads of the widget's own:

    event()                what there is: event, version, cards (as JSON documents), links (profiles to simulate)
    model(name)            what the browser runs of a model, gzip'd
    probe(name)            the network's picture of the model's first probe view, PNG
    view(document)         the view of a `ViewDocument`, encoded
    drawn_locally(name, document)    the same view as this machine draws it with a model; None where it is not here
    close()                leave

What renders and unpacks is loaded when it is first asked for: a page must not wait for it to show something.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact
from crowdnerf_lab.findings import first_finding
from crowdnerf_lab.network.links.link_profiles import LINKS
from crowdnerf_lab.network.ue import load_artefact
from crowdnerf_lab.network.views.served_fields import best_field
from crowdnerf_lab.network.views.view_codecs import MEDIA_TYPES, EncodedView, encode_picture
from crowdnerf_lab.network.views.view_documents import ViewDocument
from crowdnerf_lab.network.views.view_request import ViewError

if TYPE_CHECKING:
    import httpx

    from crowdnerf_lab.fields.baked import BakedField
    from crowdnerf_lab.fields.field import RadianceField

JOINING = {
    "device": "a browser beside a notebook",
    "operating_system": "web",
    "consent": {"train": False, "publish": False},
}
TIMEOUT_S = 60.0


class BrowserUEError(ValueError):
    """What a browser UE asked for and cannot have; the message says why and what to do."""


def links() -> list[dict[str, Any]]:
    """The links that a page can simulate."""
    return [asdict(profile) for profile in LINKS.values()]


class KernelNetwork:
    """The kernel as the network: it offers artefacts, and renders views from a field.

    field: what views are rendered from; None: the best baked field among the artefacts, as the service does.
    """

    def __init__(
        self, artefacts: Sequence[Artefact], *, event: str, field: "RadianceField | BakedField | None" = None
    ) -> None:
        self.artefacts = {artefact.card.name: artefact for artefact in artefacts}
        self._event, self._field = event, field
        if not artefacts:
            raise BrowserUEError("there are no artefacts for the browser to choose from; build some (notebook 6)")
        if field is None and not best_field(artefacts):
            raise BrowserUEError("no baked field is among the artefacts to render the network's views; give field=...")

    def event(self) -> Mapping[str, Any]:
        """The artefacts' cards, and the links that there are."""
        cards = [artefact.card.model_dump(mode="json") for artefact in self.artefacts.values()]
        return {"event": self._event, "version": None, "cards": cards, "links": links()}

    def model(self, name: str) -> bytes:
        """Raises ArtefactError or BrowserModelError, as `browser_model_of` does."""
        from crowdnerf_lab.network.models.browser_models import browser_model_of

        return browser_model_of(self._named(name)).content

    def probe(self, name: str) -> bytes:
        """The picture that came with the card."""
        artefact = self._named(name)
        return (artefact.folder / artefact.card.probes[0].path).read_bytes()

    def view(self, document: Mapping[str, Any]) -> EncodedView:
        """Rendered here and now. Raises ViewError for a view that there cannot be."""
        from crowdnerf_lab.fields.baked import BakedField
        from crowdnerf_lab.network.views.render_process import as_picture
        from crowdnerf_lab.network.views.view_engine import render_and_encode

        asked = _checked(document)
        request, field = asked.request(), self._served
        if not isinstance(field, BakedField):
            return render_and_encode(field, request, format=asked.format, quality=asked.quality)
        started = time.perf_counter()
        image = field.render_image(
            request.pose, request.focal, centre=request.centre, width=request.width, height=request.height
        )
        rendered = time.perf_counter()
        content = encode_picture(as_picture(image), format=asked.format, quality=asked.quality)
        encoded = time.perf_counter()
        return EncodedView(
            content=content,
            media_type=MEDIA_TYPES[asked.format],
            width=request.width,
            height=request.height,
            render_ms=1e3 * (rendered - started),
            encode_ms=1e3 * (encoded - rendered),
        )

    def drawn_locally(self, name: str, document: Mapping[str, Any]) -> NDArray[np.uint8]:
        """The picture [h w 3] of a model on this machine's processor."""
        request = _checked(document).request()
        model = load_artefact(self._named(name).folder)
        return model.render(request.pose, request.focal, request.centre, width=request.width, height=request.height)

    def close(self) -> None:
        """Nothing: the artefacts are somebody else's."""

    @cached_property
    def _served(self) -> "RadianceField | BakedField":
        from crowdnerf_lab.network.views.render_process import loaded_field

        return self._field or loaded_field(best_field(self.artefacts.values())[0].folder)[0]

    def _named(self, name: str) -> Artefact:
        if name not in self.artefacts:
            known = ", ".join(self.artefacts)
            raise BrowserUEError(f"there is no model {name!r:.160}; there are {known}")
        return self.artefacts[name]


class ServiceNetwork:
    """A service as the network, with the kernel as the browser's radio: a notebook's page may not reach other hosts.

    url: of the service. join_code: where the event wants one.
    """

    def __init__(self, url: str, *, event: str, join_code: str | None = None) -> None:
        self._url, self._event, self._join_code = url.rstrip("/"), event, join_code

    def event(self) -> Mapping[str, Any]:
        """The latest version's cards. Raises BrowserUEError while there is none."""
        cards = self._asked("GET", self._version).json()["cards"]
        return {"event": self._event, "version": self._number, "cards": cards, "links": links()}

    def model(self, name: str) -> bytes:
        """What the service has made for browsers."""
        from crowdnerf_lab.network.models.browser_models import packed

        return packed(self._asked("GET", f"{self._version}/artefacts/{name}/browser").content)

    def probe(self, name: str) -> bytes:
        """The picture that came with the card."""
        return self._asked("GET", f"{self._version}/artefacts/{name}/files/probe_0.png").content

    def view(self, document: Mapping[str, Any]) -> EncodedView:
        """Rendered by the service."""
        answer = self._asked("POST", f"{self._place}/views", json=dict(document))
        timing = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
        return EncodedView(
            content=answer.content,
            media_type=answer.headers["content-type"],
            width=int(answer.headers["x-view-width"]),
            height=int(answer.headers["x-view-height"]),
            render_ms=float(timing["render"]),
            encode_ms=float(timing["encode"]),
        )

    def drawn_locally(self, name: str, document: Mapping[str, Any]) -> None:
        """Nothing: the models are at the service."""

    def close(self) -> None:
        """Close the connections; the UE that joined stays known to the service."""
        if "_client" in self.__dict__:
            self._client.close()

    @property
    def _place(self) -> str:
        return f"/events/{self._event}"

    @property
    def _version(self) -> str:
        return f"{self._place}/versions/{self._number}"

    @cached_property
    def _number(self) -> int:
        answer = self._asked("GET", f"{self._place}/versions/latest")
        if not answer.content:
            raise BrowserUEError(f"{self._event} at {self._url} has no models yet; wait for its first version")
        return int(answer.json()["version"])

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        with httpx.Client(base_url=self._url, timeout=TIMEOUT_S, trust_env=False) as joining:
            joined = joining.post(f"{self._place}/ues", json=JOINING | {"join_code": self._join_code})
        token = _granted(joined).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self._url, timeout=TIMEOUT_S, trust_env=False, headers=headers)

    def _asked(self, method: str, path: str, *, json: dict[str, Any] | None = None) -> "httpx.Response":
        return _granted(self._client.request(method, path, json=json))


UENetwork = KernelNetwork | ServiceNetwork


def _checked(document: Mapping[str, Any]) -> ViewDocument:
    try:
        return ViewDocument.model_validate(document)
    except ValidationError as error:
        raise ViewError(f"the view that was asked for is none: {first_finding(error)}") from error


def _granted(answer: "httpx.Response") -> "httpx.Response":
    """An answer that is no refusal. Raises BrowserUEError in the service's own words."""
    if answer.is_success:
        return answer
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"status {answer.status_code}"
    raise BrowserUEError(f"{answer.request.method} {answer.request.url}: {detail}")


def network_of(
    source: Any, *, event: str, field: "RadianceField | BakedField | None", join_code: str | None
) -> UENetwork:
    """The network that a workbench, a service, its URL, or artefacts make. Raises BrowserUEError for anything else."""
    if isinstance(url := getattr(source, "url", source), str):  # a RunningService, or where one is
        return ServiceNetwork(url, event=event, join_code=join_code)
    if isinstance(source, Path):
        source = [open_artefact(card.parent) for card in sorted(source.glob("*/card.json"))]
    if isinstance(source, Artefact):
        source = [source]
    if isinstance(source, Sequence) and all(isinstance(each, Artefact) for each in source):
        return KernelNetwork(source, event=event, field=field)
    from crowdnerf_lab.workbench import Workbench  # late: it loads all that trains

    if isinstance(source, Workbench):
        return KernelNetwork(source.artefacts(), event=event, field=field)
    raise BrowserUEError(
        f"a browser UE cannot be served by {type(source).__name__}; give a workbench, a service, its URL, or artefacts"
    )

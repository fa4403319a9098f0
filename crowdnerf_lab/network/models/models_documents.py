"""What UEs say when they ask for models, and what the service answers, as JSON documents."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.card import ModelCard
from crowdnerf_lab.catalogue.select import Task

Number = Annotated[int, Field(ge=1, le=10**9)]
ArtefactName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decibels = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class _Said(BaseModel):
    """Of a UE: what a newer one adds is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TargetDocument(_Said):
    """What a UE will accept; null is no limit. Bytes, milliseconds, seconds, dB as in catalogue.limits.Target."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    max_bytes: Annotated[int, Field(ge=1, le=1 << 53)] | None = None
    max_ms: Limit | None = None
    max_download_s: Limit | None = None
    min_psnr: Decibels | None = None
    min_ssim: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None
    within_db: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None
    frames_per_s: Limit | None = None


class HeldModel(_Said):
    """A model that a UE has already, from which a delta may lead on."""

    version: Number
    name: ArtefactName


class SelectRequest(_Said):
    """What a UE can do now, what it will accept, what for. held: models it has. most: of models that it takes; with two
    or more, a small one may come first so that there is something to see at once."""

    capability: Capability
    target: TargetDocument = TargetDocument()
    task: Task = "novel_view"
    held: Annotated[tuple[HeldModel, ...], Field(max_length=64)] = ()
    most: Annotated[int, Field(ge=1, le=8)] = 1


class FileDocument(_Document):
    """One file of a model, and where to fetch it."""

    path: str
    bytes: int
    sha256: str
    href: str


class DeltaDocument(_Document):
    """What makes the model's file `path` of the one in version `from`."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    since: int = Field(alias="from")
    path: str
    bytes: int
    sha256: str
    href: str


class OfferDocument(_Document):
    """A model that is offered: its card, its files, and a delta where the UE holds an older one and it pays."""

    name: str
    card: ModelCard
    files: tuple[FileDocument, ...]
    delta: DeltaDocument | None = None


class SelectionDocument(_Document):
    """Models in the order of their download; none: ask the network for views. version: null before there is one."""

    version: int | None
    artefacts: tuple[OfferDocument, ...]
    reason: str
    inference: Literal["device", "network"]


class VersionDocument(_Document):
    """A version. published: Unix time. withdrawn: why it is given out no longer."""

    version: int
    published: float
    note: str
    artefacts: tuple[str, ...]
    withdrawn: str | None


class VersionList(_Document):
    """All versions of an event, the first first, withdrawn ones too. latest: to be used."""

    latest: int | None
    versions: tuple[VersionDocument, ...]


class CardsDocument(VersionDocument):
    """A version with the cards of its artefacts."""

    cards: tuple[ModelCard, ...]

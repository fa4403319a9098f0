"""ModelCard: what an artefact is, how it was made, and what was measured, as a JSON document.

After Model Cards (Mitchell et al., FAT* 2019), for a receiver that can measure again. What was not measured is None,
and `ModelCard.unmeasured` names it; nothing on a card is an estimate, but for energy, which says what it assumes.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from crowdnerf_lab.catalogue.verification import FORMAT, VERSION
from crowdnerf_lab.devices.profile import Precision

Kind = Literal["light_field", "baked_field"]
Family = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""What a model is among those of its `kind`: ray_mlp, light_slab, baked_field, ... A receiver needs no list of them."""
Format = Literal[
    "onnx_float32",
    "onnx_float16",
    "onnx_int8_qdq",
    "onnx_int8_qdq_signed",
    "onnx_int8_matmul",
    "onnx_int8_weights",
    "onnx_int4_weights",
    "onnx_int8_mixed",
    "baked",
]
"""How the weights are stored; `computes_in` says what they are computed with (weight-only formats: float32).

qdq: int8 weights, uint8 activations (U8S8); qdq_signed: int8 for both (S8S8); matmul: dynamic int8 in matrix form;
mixed: int8 where it does not hurt, float32 elsewhere.
"""
Coding = Literal["none", "zstd", "range", "progressive"]
"""How the file travels: as it runs; through zstd; through a range coder; range-coded in layers, coarse ones first."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=256)
]
Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decibels = Annotated[float, Field(ge=-20, le=200, allow_inf_nan=False)]
Similarity = Annotated[float, Field(ge=-1, le=1)]
Flip = Annotated[float, Field(ge=0, le=1)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CardFile(_Document):
    """One file of the artefact, its path relative to the folder."""

    path: FileName
    bytes: int = Field(ge=1)
    sha256: Sha256


class Latency(_Document):
    """Time of a frame, pose in to picture out, over the probe views in turn, measured on `machine`: a proxy for any
    other device.

    processor_ms: what the processor spent on it, threads added up: on a busy machine the clock runs on, this does not.
    """

    median_ms: Milliseconds
    p95_ms: Milliseconds
    processor_ms: Milliseconds | None = None
    frames: int = Field(ge=1)
    threads: int = Field(ge=1)
    runtime: str = Field(min_length=1)
    machine: str = Field(min_length=1)


class MeasuredQuality(_Document):
    """Pictures of `views` held-out views at their photos' size, against the photos and against the teacher.

    psnr_before: of the same model before quantization, against the photos. None: not measured (no held-out photos).
    """

    views: int = Field(ge=0)
    psnr: Decibels | None
    psnr_affine: Decibels | None
    ssim: Similarity | None
    flip: Flip | None
    psnr_teacher: Decibels | None
    psnr_before: Decibels | None = None


class QualityStep(_Document):
    """The model after one step of its making ("trained", "converted", "coded", ...), on the views of MeasuredQuality.

    psnr: dB against the photos. ssim, flip: None where not measured.
    """

    step: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_ ]{0,63}$")]
    psnr: Decibels
    ssim: Similarity | None = None
    flip: Flip | None = None


class Prefix(_Document):
    """The first layers of a progressive file: `bytes` from its start, with their own SHA-256, so that what has arrived
    can be trusted and shown; psnr: of that, on the views of MeasuredQuality (None: not measured)."""

    bytes: int = Field(ge=1)
    sha256: Sha256
    psnr: Decibels | None = None


class Energy(_Document):
    """Estimated energy of one frame, millijoules. assumption: how it was estimated, in a sentence; never empty."""

    frame_mj: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    assumption: str = Field(min_length=20)


class ViewCell(_Document):
    """Where viewers may be for whom a model was made (a seat block): a ball, in metres of the scene."""

    centre: tuple[float, float, float]
    radius: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Contributor(_Document):
    """Somebody whose photos the model learned from: the pseudonym, and the licence of the photos."""

    ue: str = Field(min_length=1, max_length=256)
    licence: str = Field(min_length=1)


class Provenance(_Document):
    """What the model was made from: scene, SHA-256 of the teacher's weights, seed, versions as 'name number'.

    captures_sha256: of the captures that the teacher learned from; None where the scene was no capture set.
    weights_sha256: of the weights before conversion: the student's, or the teacher's where it was baked. trained_on:
    whose photos; empty on cards written before cards said so.
    """

    scene: str
    captures_sha256: Sha256 | None = None
    teacher_sha256: Sha256
    weights_sha256: Sha256 | None = None
    seed: int
    versions: tuple[str, ...]
    trained_on: tuple[Contributor, ...] = ()


class Probe(_Document):
    """A view with which a receiver measures again: an ideal camera (OpenCV axes, pixels) and the teacher's picture."""

    path: FileName
    camera_to_world: tuple[tuple[float, float, float, float], ...] = Field(min_length=3, max_length=3)
    focal: tuple[float, float]
    centre: tuple[float, float]


class ModelCard(_Document):
    """What an artefact's card.json holds; documents of version 1 are read too.

    profile: the device class it was made for; None: for whom it fits. model: the file to load. bytes: its size as it
    travels; bytes_uncoded: as it would travel without coding; bytes_float32: of the same model as plain float32.
    width, height: of the picture that the model draws, pixels. computes_in: the device's arithmetic, whatever the
    weights are stored as. flops: operations of one frame (a multiply-add counts two); bytes_moved: what its kernels
    read and write with nothing cached; both counted, not timed. peak_memory_mb: most resident memory of a process that
    loads and runs the model, less the process's own before. cold_start_ms: from the verified files to the first
    picture, in a process whose libraries are loaded. view_cell: None: all of the event. steps: the quality after each
    step, in order; the last is the file's. layers: prefixes of a progressive file, the shortest first. probe_psnr: PSNR
    of this model against its probe views, which a receiver should find again within 0.2 dB.
    """

    format: Literal["crowdnerf_lab.artefact"] = FORMAT
    version: Literal[2] = VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
    profile: str | None = None
    kind: Kind
    family: Family | None = None
    stored_as: Format
    computes_in: Precision
    coding: Coding = "none"
    architecture: str
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    view_cell: ViewCell | None = None
    model: FileName
    bytes: int = Field(ge=1)
    bytes_uncoded: int | None = Field(default=None, ge=1)
    bytes_float32: int | None = Field(default=None, ge=1)
    parameters: int | None = Field(default=None, ge=1)
    flops: int | None = Field(default=None, ge=1)
    bytes_moved: int | None = Field(default=None, ge=1)
    peak_memory_mb: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    energy: Energy | None = None
    latency: Latency
    cold_start_ms: Milliseconds | None = None
    quality: MeasuredQuality
    steps: tuple[QualityStep, ...] = ()
    layers: tuple[Prefix, ...] = ()
    probe_psnr: Decibels
    probes: tuple[Probe, ...] = Field(min_length=1)
    provenance: Provenance
    licence: str = Field(min_length=1)
    files: tuple[CardFile, ...] = Field(min_length=1)

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Names of the figures that nobody measured, as a reader of the card would look for them."""
        figures = {f"quality.{name}": value for name, value in self.quality if name != "psnr_before"}
        figures |= {name: getattr(self, name) for name in MEASURED}
        return tuple(name for name, value in figures.items() if value is None or value == ())

    @model_validator(mode="before")
    @classmethod
    def _of_this_version(cls, document: Any) -> Any:
        """Version 1 knew one family of each kind and no coding; what it did not say stays unsaid."""
        if isinstance(document, dict) and document.get("version") == 1:
            family = FAMILY_IN_VERSION_1.get(str(document.get("kind")))
            return document | {"version": VERSION, "family": family}
        return document

    @model_validator(mode="after")
    def _files_agree(self) -> "ModelCard":
        sizes = {file.path: file.bytes for file in self.files}
        if len(sizes) != len(self.files):
            raise ValueError("a file is listed twice; list each once")
        absent = [path for path in (self.model, *(probe.path for probe in self.probes)) if path not in sizes]
        if absent:
            raise ValueError(f"{absent[0]} is not among the files; list it with its SHA-256")
        if sizes[self.model] != self.bytes:
            raise ValueError(f"bytes is {self.bytes} but {self.model} has {sizes[self.model]}; correct it")
        return self

    @model_validator(mode="after")
    def _coding_agrees(self) -> "ModelCard":
        if (self.kind == "baked_field") != (self.stored_as == "baked"):
            raise ValueError(f"kind is {self.kind} but stored_as is {self.stored_as}; correct one of the two")
        if self.coding == "none" and self.bytes_uncoded not in (None, self.bytes):
            raise ValueError(f"bytes_uncoded is {self.bytes_uncoded}, bytes {self.bytes}, coding none; correct one")
        if self.coding != "none" and self.bytes_uncoded is None:
            raise ValueError(f"coding is {self.coding} but bytes_uncoded is missing; add it")
        if self.layers and self.coding != "progressive":
            raise ValueError(f"layers are given but coding is {self.coding}; only progressive files have layers")
        ends = [layer.bytes for layer in self.layers]
        if ends != sorted(set(ends)) or (ends and ends[-1] > self.bytes):
            raise ValueError(f"layers end after {ends} bytes of {self.bytes}; list them once, the shortest first")
        return self


MEASURED = (
    "bytes_float32",
    "parameters",
    "flops",
    "bytes_moved",
    "peak_memory_mb",
    "energy",
    "cold_start_ms",
    "steps",
)
"""Figures of a card, beside those of its quality, that may be missing."""
FAMILY_IN_VERSION_1 = {"light_field": "ray_mlp", "baked_field": "baked_field"}

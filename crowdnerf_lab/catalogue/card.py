"""ModelCard: what an artefact is, how it was made, and what was measured, as a JSON document."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from crowdnerf_lab.catalogue.verification import FORMAT, VERSION
from crowdnerf_lab.devices.profile import Precision

Kind = Literal["light_field", "baked_field"]
Format = Literal["onnx_float32", "onnx_int8_qdq", "onnx_int8_weights", "baked"]
"""How the model is stored. onnx_int8_weights computes in float32."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=256)
]
Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decibels = Annotated[float, Field(ge=-20, le=200, allow_inf_nan=False)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CardFile(_Document):
    """One file of the artefact, its path relative to the folder."""

    path: FileName
    bytes: int = Field(ge=1)
    sha256: Sha256


class Latency(_Document):
    """Time of a frame, pose in to picture out, measured on `machine`: for any other device it is a proxy."""

    median_ms: Milliseconds
    p95_ms: Milliseconds
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
    ssim: float | None = Field(ge=-1, le=1)
    flip: float | None = Field(ge=0, le=1)
    psnr_teacher: Decibels | None
    psnr_before: Decibels | None


class Contributor(_Document):
    """Somebody whose photos the model learned from: the pseudonym, and the licence of the photos."""

    ue: str = Field(min_length=1, max_length=256)
    licence: str = Field(min_length=1)


class Provenance(_Document):
    """What the model was made from: scene, SHA-256 of the teacher's weights, seed, versions as 'name number'.

    trained_on: whose photos; empty on cards written before cards said so.
    """

    scene: str
    teacher_sha256: Sha256
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
    """What an artefact's card.json holds.

    model: the file to load, bytes: its size. width, height: of the picture that the model draws, pixels. computes_in:
    the device's arithmetic, whatever the weights are stored as. probe_psnr: PSNR of this model against its probe views,
    which a receiver should find again within 0.2 dB.
    """

    format: Literal["crowdnerf_lab.artefact"] = FORMAT
    version: Literal[1] = VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
    profile: str
    kind: Kind
    stored_as: Format
    computes_in: Precision
    architecture: str
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    model: FileName
    bytes: int = Field(ge=1)
    latency: Latency
    quality: MeasuredQuality
    probe_psnr: Decibels
    probes: tuple[Probe, ...] = Field(min_length=1)
    provenance: Provenance
    licence: str = Field(min_length=1)
    files: tuple[CardFile, ...] = Field(min_length=1)

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

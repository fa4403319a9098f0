"""Ladder: every form in which a scene can reach a device, each built once, measured as a UE runs it, and published.

Its axes are the family and size of the model, the format of its weights, the resolution of its pictures, and the coding
of the file that travels. A light field draws cells of the angular size it was distilled with, so its resolution is its
own; a baked field draws any.
"""

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from crowdnerf_lab.catalogue.artefact import Artefact, card_files, card_layers, open_artefact, write_artefact
from crowdnerf_lab.catalogue.card import (
    Coding,
    Contributor,
    Format,
    MeasuredQuality,
    ModelCard,
    Prefix,
    Probe,
    Provenance,
    QualityStep,
)
from crowdnerf_lab.catalogue.remeasurement import probe_psnr, timed_on_probes
from crowdnerf_lab.catalogue.verification import ArtefactError
from crowdnerf_lab.coding.quantization import Importance as WeightImportance
from crowdnerf_lab.contributors import contributors_of
from crowdnerf_lab.devices.cold_start import ColdStart, measure_cold_start
from crowdnerf_lab.devices.cost import energy_of
from crowdnerf_lab.devices.measure import (
    MOST_DB,
    as_bytes,
    as_colour,
    latency_of,
    machine,
    pictures_of,
    pooled_psnr,
    quality_of_pictures,
)
from crowdnerf_lab.devices.profile import DeviceProfile, device_profile
from crowdnerf_lab.devices.quantize import QuantizationError
from crowdnerf_lab.devices.reference import Reference, reference_of, write_probes
from crowdnerf_lab.devices.rungs import (
    Candidate,
    Rung,
    baked_rung,
    family_of,
    importances_of,
    layer_ends,
    light_field_rung,
    opened,
    plain,
    plain_graph_of,
    size_of,
)
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.baking import TIERS, Tier, bake
from crowdnerf_lab.fields.importance import Importance, ImportanceSettings, importance_of
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.network.ue import Picture
from crowdnerf_lab.scene import PosedScene

__all__ = ["Candidate", "Ladder", "LadderError"]

log = logging.getLogger(__name__)

FORMATS: tuple[Format, ...] = (
    "onnx_float32",
    "onnx_float16",
    "onnx_int8_qdq",
    "onnx_int8_qdq_signed",
    "onnx_int8_matmul",
    "onnx_int8_mixed",
    "onnx_int8_weights",
    "onnx_int4_weights",
)
CODINGS: tuple[Coding, ...] = ("none", "zstd", "range", "progressive")
BAKED_CODINGS: tuple[Coding, ...] = ("none", "progressive")
"""Of baked fields; a tier of so many bytes has them coded, and would be several times as large uncoded."""
FAITHFUL_DB: dict[Format, float] = {"onnx_float32": 38.0, "onnx_int8_weights": 38.0, "onnx_int8_qdq": 38.0}
"""Formats whose weights a range coder may round: it costs 0.06 dB of a student that is at 19 dB to the truth."""
ROUNDS = 3
"""Of timing, of which the least disturbed counts."""
MOST_PREFIXES = 6
"""Beginnings of a progressive file that are measured, the first layer and the whole file among them."""
MADE_WITH = ("crowdnerf-lab", "torch", "onnx", "onnxruntime", "numba", "constriction", "zstandard")


class LadderError(ValueError):
    """A rung that cannot be built, or students that cannot be told apart; the message says why and what to do."""


class Ladder:
    """All rungs of one scene, below `root`: artefacts in folders of their own, half-finished work in .work.

    field: the teacher. students: light fields, distilled at the size they are asked for. reference: what they are
    judged by (by default the scene's held-out views). tiers, resolutions, importance: of baked fields; formats,
    codings: of light fields. frames, threads: of the timing. energy_as: the profile whose declared energies the cards'
    estimates assume (laptop_cpu by default). licence: of the models; licences: of each contributor's photos (`licence`
    where not given).
    captures_sha256: of the captures that the teacher learned from. seed: the students'. brisk: for models that are
    made while an event runs: leave out what takes processes of its own (start and memory), time one round, and measure
    the first beginning of a file alone. after: the artefacts of the version before; coded files of the same names then
    follow them, so that the delta from one to the other is small.
    """

    def __init__(
        self,
        field: SHGrid,
        students: Sequence[LightField],
        *,
        scene: PosedScene,
        root: Path,
        reference: Reference | None = None,
        tiers: Sequence[Tier] = TIERS,
        importance: ImportanceSettings | None = None,
        resolutions: Sequence[tuple[int, int]] = ((320, 240), (160, 120)),
        formats: Sequence[Format] = FORMATS,
        codings: Sequence[Coding] = CODINGS,
        frames: int = 20,
        threads: int = 1,
        energy_as: DeviceProfile | None = None,
        licence: str = "not stated",
        licences: Mapping[str, str] | None = None,
        captures_sha256: str | None = None,
        seed: int = 0,
        brisk: bool = False,
        after: Sequence[Artefact] = (),
    ) -> None:
        self.field, self.scene, self.root = field, scene, Path(root)
        self.tiers, self.resolutions = {tier.name: tier for tier in tiers}, tuple(resolutions)
        self.formats, self.codings = tuple(formats), tuple(codings)
        self.frames, self.threads = frames, threads
        self.licence, self.licences = licence, dict(licences or {})
        self.captures_sha256, self.seed, self.brisk = captures_sha256, seed, brisk
        self._reference, self._energy_as = reference, energy_as
        self._importance_settings = importance
        self._before = {artefact.card.name: artefact for artefact in after if artefact.card.coding != "none"}
        self._students = {(family_of(student), size_of(student)): student for student in students}
        self._importances_of: dict[tuple[str, str], Mapping[str, WeightImportance]] = {}
        self._qualities: dict[str, MeasuredQuality] = {}
        if len(self._students) != len(students):
            named = ", ".join(" ".join(key) for key in sorted(self._students))
            raise LadderError(f"{len(students)} students but only {named} can be told apart; give one of each")

    @cached_property
    def reference(self) -> Reference:
        """The views that all rungs are judged by."""
        return self._reference or reference_of(self.field, self.scene)

    def candidates(self) -> tuple[Candidate, ...]:
        """Every rung, whether it was built or not."""
        light_fields = [
            Candidate(family, size, stored_as, *student.view_size, coding, _faithful_db(stored_as, coding))
            for (family, size), student in self._students.items()
            for stored_as in self.formats
            for coding in self.codings
        ]
        baked = [
            Candidate("baked_field", tier.name, "baked", width, height, coding)
            for tier in self.tiers.values()
            for width, height in self.resolutions
            for coding in BAKED_CODINGS
            if coding in self.codings and (coding != "none" or tier.max_bytes is None)
        ]
        return tuple(light_fields + baked)

    def shortlist(self) -> tuple[Candidate, ...]:
        """The rungs that tell most: each model coded, so that any beginning of its file draws; to compare with, each
        student as plain float32 and the whole field as it is."""
        return tuple(
            candidate
            for candidate in self.candidates()
            if candidate.coding == "progressive"
            or (candidate.coding == "none" and candidate.stored_as in ("onnx_float32", "baked"))
        )

    def built(self, candidate: Candidate) -> Artefact | None:
        """The candidate's artefact, if it was built of these weights and measured on this machine in this way."""
        try:
            artefact = open_artefact(self.root / self._name(candidate))
        except ArtefactError:
            return None
        card = artefact.card
        same = (
            card.provenance == self._provenance(candidate)
            and card.licence == self.licence
            and card.quality.views == len(self.reference.photos)
            and (card.latency.machine, card.latency.threads) == (machine(), self.threads)
            and card.latency.frames == self.frames
        )
        return artefact if same else None

    def build(self, candidate: Candidate) -> Artefact:
        """The candidate's artefact, made, measured and published unless that was done before.

        Raises LadderError when the student does not take the format, FileError when the disk is full.
        """
        known = self.built(candidate)
        if known is not None:
            return known
        folder = self.root / ".work" / self._weights_sha256(candidate)[:16]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            rung = self._rung(candidate, folder)
        except QuantizationError as error:
            raise LadderError(f"{candidate.name} is not offered: {error}") from error
        return self._published(candidate, rung, folder)

    def build_all(
        self, candidates: Iterable[Candidate] | None = None, *, progress: bool = True
    ) -> tuple[Artefact, ...]:
        """Build these candidates (all by default), those that can be; what cannot is logged with its reason."""
        chosen = self.candidates() if candidates is None else tuple(candidates)
        artefacts, refused = [], []
        for candidate in tqdm(chosen, desc="ladder", unit="model", disable=not progress):
            try:
                artefacts.append(self.build(candidate))
            except LadderError as error:
                refused.append(str(error))
        for reason in refused:
            log.warning(reason)
        log.info("ladder: %d models in %s, %d not offered", len(artefacts), self.root, len(refused))
        return tuple(artefacts)

    def _rung(self, candidate: Candidate, folder: Path) -> Rung:
        if candidate.kind == "baked_field":
            return baked_rung(
                lambda before: self._baked(candidate, before),
                candidate,
                scene=self.scene,
                folder=folder,
                after=self._file_before(candidate),
            )
        return light_field_rung(
            self._student(candidate),
            candidate,
            scene=self.scene,
            folder=folder,
            importances=lambda: self._importances(candidate),
            after=self._file_before(candidate),
        )

    def _file_before(self, candidate: Candidate) -> Path | None:
        before = self._before.get(self._name(candidate))
        return before.model if before is not None and before.card.coding == candidate.coding else None

    def _importances(self, candidate: Candidate) -> Mapping[str, WeightImportance]:
        key = candidate.family, candidate.size
        if key not in self._importances_of:
            self._importances_of[key] = importances_of(self._students[key], self.scene, seed=self.seed)
        return self._importances_of[key]

    def _student(self, candidate: Candidate) -> LightField:
        try:
            return self._students[candidate.family, candidate.size]
        except KeyError:
            raise LadderError(f"{candidate.name}: the ladder has no such student; choose one of candidates()") from None

    def _baked(self, candidate: Candidate, before: BakedField | None) -> BakedField:
        return bake(
            self.field,
            cameras=self.scene.cameras[self.scene.train],
            max_bytes=self.tiers[candidate.size].max_bytes,
            importance=self._importance,
            after=before,
            seed=self.seed,
        )

    @cached_property
    def _importance(self) -> Importance:
        return importance_of(
            self.field, self.scene.cameras[self.scene.train], seed=self.seed, settings=self._importance_settings
        )

    def _published(self, candidate: Candidate, rung: Rung, folder: Path) -> Artefact:
        """Measure a rung as a UE would run it, and publish it."""
        model = opened(rung.path, candidate, threads=self.threads)
        pictures = pictures_of(model, self.reference.cameras)
        steps = self._steps(candidate, rung, folder, pictures)
        before = steps[0].psnr if len(steps) > 1 else None
        with TemporaryDirectory(dir=folder) as probed:
            width, height = self._probe_size
            probes = write_probes(self.field, self.scene, Path(probed), width=width, height=height)
            described = [probe.model_dump() for probe in probes]
            file = f"model{rung.path.suffix}"
            files = {file: rung.path} | {probe.path: Path(probed) / probe.path for probe in probes}
            start = None if self.brisk else self._cold_start(candidate, rung, probes[0])
            timing = timed_on_probes(
                model, Path(probed), described, frames=self.frames, rounds=1 if self.brisk else ROUNDS
            )
            card = ModelCard(
                name=self._name(candidate),
                kind=candidate.kind,
                family=candidate.family,
                stored_as=candidate.stored_as,
                computes_in=rung.computes_in,
                coding=candidate.coding,
                architecture=rung.architecture,
                width=candidate.width,
                height=candidate.height,
                model=file,
                bytes=rung.path.stat().st_size,
                bytes_uncoded=rung.uncoded.stat().st_size,
                bytes_float32=rung.bytes_float32,
                parameters=rung.parameters,
                flops=rung.work.flops,
                bytes_moved=rung.work.bytes_moved,
                peak_memory_mb=start and start.peak_memory_mb,
                energy=energy_of(self._energy_profile, rung.work, precision=rung.computes_in),
                latency=latency_of(model, timing),
                cold_start_ms=start and start.ms,
                quality=self._quality(pictures).model_copy(update={"psnr_before": before}),
                steps=steps,
                layers=self._layers(candidate, rung),
                probe_psnr=probe_psnr(model, Path(probed), described),
                probes=probes,
                provenance=self._provenance(candidate),
                licence=self.licence,
                files=card_files(files),
            )
            return write_artefact(card, self.root, files=files)

    def _cold_start(self, candidate: Candidate, rung: Rung, probe: Probe) -> ColdStart:
        return measure_cold_start(
            rung.path,
            probe,
            kind=candidate.kind,
            coded=candidate.coding != "none",
            width=candidate.width,
            height=candidate.height,
            threads=self.threads,
        )

    def _steps(
        self, candidate: Candidate, rung: Rung, folder: Path, pictures: Sequence[Picture]
    ) -> tuple[QualityStep, ...]:
        """Quality as trained, as converted and as coded: those steps that this rung went through."""
        if not self.reference.photos:
            return ()
        if candidate.kind == "baked_field":
            trained = [as_bytes(picture) for picture in self.reference.teacher]
        else:
            trained = self._shown(plain_graph_of(self._student(candidate), candidate, folder=folder), candidate)
        through: dict[str, Sequence[Picture]] = {"trained": trained}
        if candidate.stored_as != "onnx_float32":
            through["converted"] = pictures if candidate.coding == "none" else self._shown(rung.uncoded, candidate)
        if candidate.coding != "none":
            through["coded"] = pictures
        qualities = {step: self._quality(shown) for step, shown in through.items()}
        return tuple(
            QualityStep(step=step, psnr=quality.psnr, ssim=quality.ssim, flip=quality.flip)
            for step, quality in qualities.items()
            if quality.psnr is not None
        )

    def _shown(self, path: Path, candidate: Candidate) -> list[Picture]:
        return pictures_of(opened(path, candidate, threads=self.threads), self.reference.cameras)

    def _quality(self, pictures: Sequence[Picture]) -> MeasuredQuality:
        """Of pictures against the reference; the same pictures are compared once."""
        digest = hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest()
        if digest not in self._qualities:
            self._qualities[digest] = quality_of_pictures(
                pictures, photos=self.reference.photos, teacher=self.reference.teacher
            )
        return self._qualities[digest]

    def _layers(self, candidate: Candidate, rung: Rung) -> tuple[Prefix, ...]:
        """What the beginnings of a progressive file show, but for those that are worse than one colour if the whole is
        better."""
        if candidate.coding != "progressive":
            return ()
        ends = layer_ends(rung.path, candidate)
        most = 2 if self.brisk else MOST_PREFIXES
        chosen = sorted({ends[i] for i in np.linspace(0, len(ends) - 1, most).round().astype(int)})
        psnr = {end: self._psnr_of_prefix(candidate, rung, end) for end in chosen}
        worst = self._psnr_of_one_colour
        if (psnr[ends[-1]] or -math.inf) < worst:
            worst = -math.inf
        shown = [end for end in chosen if (psnr[end] or math.inf) >= worst]
        return card_layers(rung.path, ends=shown, psnr={end: psnr[end] for end in shown})

    def _psnr_of_prefix(self, candidate: Candidate, rung: Rung, end: int) -> float | None:
        if not self.reference.photos:
            return None
        model = opened(rung.path, candidate, threads=self.threads, most_bytes=end)
        shown = [as_colour(picture) for picture in pictures_of(model, self.reference.cameras)]
        return min(pooled_psnr(shown, self.reference.photos), MOST_DB)

    @cached_property
    def _psnr_of_one_colour(self) -> float:
        """Of pictures that show the photos' mean colour and nothing else."""
        if not self.reference.photos:
            return -math.inf
        mean = torch.cat([photo.reshape(-1, 3) for photo in self.reference.photos]).mean(0)
        return pooled_psnr([mean.expand_as(photo) for photo in self.reference.photos], self.reference.photos)

    def _name(self, candidate: Candidate) -> str:
        return f"{plain(self.scene.name)}.{candidate.name}"

    @property
    def _probe_size(self) -> tuple[int, int]:
        """The largest picture of any rung: probes of less would hide what it shows."""
        return max((candidate.width, candidate.height) for candidate in self.candidates())

    @cached_property
    def _energy_profile(self) -> DeviceProfile:
        return self._energy_as or device_profile("laptop_cpu")

    def _provenance(self, candidate: Candidate) -> Provenance:
        return Provenance(
            scene=self.scene.name,
            captures_sha256=self.captures_sha256,
            teacher_sha256=self._teacher_sha256,
            weights_sha256=self._weights_sha256(candidate),
            seed=self.seed,
            versions=tuple(f"{package} {version(package)}" for package in MADE_WITH),
            trained_on=tuple(
                Contributor(ue=ue, licence=self.licences.get(ue, self.licence)) for ue in contributors_of(self.scene)
            ),
        )

    def _weights_sha256(self, candidate: Candidate) -> str:
        if candidate.kind == "baked_field":
            return self._teacher_sha256
        return weights_sha256(self._student(candidate))

    @cached_property
    def _teacher_sha256(self) -> str:
        return weights_sha256(self.field)


def _faithful_db(stored_as: Format, coding: Coding) -> float | None:
    return FAITHFUL_DB.get(stored_as) if coding in ("range", "progressive") else None


def weights_sha256(network: nn.Module | LightField) -> str:
    """SHA-256 of a network's parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

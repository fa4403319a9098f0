"""What the notebooks of one preset share: made once, kept in a folder, loaded by whichever notebook needs it next.

A notebook asks the workbench for what an earlier one made. What is not there yet is made here, in the same way, so that
every notebook can be opened alone.
"""

import hashlib
import logging
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.captures.bundle import MANIFEST, CaptureSet, captures_digest, concert, read_bundle, write_captures
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.intake.ingest import ingest
from crowdnerf_lab.captures.poses.calibration import Align, CalibrationReport, Poses, calibrate
from crowdnerf_lab.captures.screening.screen import screen
from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.contributors import contributors_of
from crowdnerf_lab.devices.ladder import Ladder
from crowdnerf_lab.devices.measure import intrinsics
from crowdnerf_lab.devices.profile import DeviceProfile, device_profiles
from crowdnerf_lab.devices.reference import reference_of
from crowdnerf_lab.distillation import Distillation, distil
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.baking import TIERS
from crowdnerf_lab.fields.importance import Importance, ImportanceSettings, importance_of
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.fields.storage import Field, load_field, save_field, sh_grid_of
from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.light_fields.storage import load_light_field, save_light_field
from crowdnerf_lab.light_fields.students import untrained_student
from crowdnerf_lab.network.views.view_engine import ViewRequest
from crowdnerf_lab.presets import Preset, preset
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import PosedScene, area_resized
from crowdnerf_lab.training import fit

logger = logging.getLogger(__name__)

RUNS_VARIABLE = "CROWDNERF_RUNS"
"""Environment variable that names the folder of all presets' results; without it, `runs` of the checkout."""

HELD_OUT_EVERY = 8
"""Of one's own photos, every how many is not trained on but judges a field."""


@dataclass(frozen=True)
class Views:
    """Views that no UE took, at the size that a UE shows: cameras, and the true pictures in [0, 1]."""

    cameras: Cameras
    truths: tuple[Float[Tensor, "h w 3"], ...]

    def __len__(self) -> int:
        return len(self.truths)


@dataclass(frozen=True)
class Workbench:
    """An event at the sizes of one preset, and what has been made of it so far in the folder `root`.

    folder: captures of one's own; None is the bundled concert.
    """

    root: Path
    preset: Preset
    folder: Path | None = None

    @cached_property
    def _full_scene(self) -> PosedScene:
        if self.folder is None:
            return calibrate(self.captures(), poses="truth")[0]
        captures = self.captures_to_calibrate()
        poses = "given" if all(photo.camera for photo in captures.photos) else "colmap"
        scene, _ = calibrate(captures, poses=poses, workspace=self.root / "colmap")
        return scene if len(scene.held_out) else scene.holding_out(HELD_OUT_EVERY)

    def received(self) -> CaptureSet:
        """What the crowd sent: the concert as it is, or one's own captures, taken in as an upload would be."""
        if self.folder is None:
            return concert()
        root = self.root / "received"
        if not (root / MANIFEST).exists():
            ingest(self.folder, root)
        return read_bundle(root)

    def captures(self) -> CaptureSet:
        """The crowd's photos that passed the screening."""
        folder = self.root / "screened"
        if not (folder / MANIFEST).exists():
            write_captures(screen(self.received())[0], folder)
        return read_bundle(folder)

    def captures_to_calibrate(self) -> CaptureSet:
        """As many of them, UE after UE, as the preset gives to structure from motion."""
        captures = self.captures()
        return captures.keeping([photo.file for photo in captures.photos[: self.preset.calibration_photos or None]])

    @property
    def align(self) -> Align:
        """What the frame of structure from motion is fitted to: the truth where known, else what phones report."""
        return "truth" if self.folder is None else "metadata"

    @property
    def located(self) -> bool:
        """Whether phones say where they were."""
        return any(photo.reported or photo.gps for photo in self.captures_to_calibrate().photos)

    def recorded_poses(self) -> dict[str, tuple[PosedScene, CalibrationReport]]:
        """The captures to calibrate in every frame that their records tell of: the phones' own, another tool's, the
        truth of a simulation."""
        captures = self.captures_to_calibrate()
        recorded: dict[str, tuple[Poses, bool]] = {
            "metadata": ("metadata", any(photo.reported for photo in captures.photos)),
            "another tool": ("given", any(photo.camera for photo in captures.photos)),
            "truth": ("truth", any(photo.truth for photo in captures.photos)),
        }
        return {name: calibrate(captures, poses=poses) for name, (poses, known) in recorded.items() if known}

    def scene(self) -> PosedScene:
        """The screened photos with their true poses, and the held-out views that judge a field; the preset's size."""
        return self.sized(self._full_scene)

    def sized(self, scene: PosedScene) -> PosedScene:
        """A scene as the preset trains on it: photos shrunk, held-out views few enough."""
        held_out = scene.held_out[: self.preset.held_out_views or None]
        return scene.with_split(scene.train.tolist(), held_out.tolist()).downscaled(self.preset.photo_downscale)

    def views(self) -> Views:
        """The held-out views at the size that a UE shows."""
        return self._views

    @cached_property
    def _views(self) -> Views:
        scene, width, height = self._full_scene, self.preset.view_width, self.preset.view_height
        rows = scene.held_out[: self.preset.held_out_views or None]
        truths = (area_resized(scene.images[row], width, height).to(torch.float32) / 255 for row in rows.tolist())
        return Views(cameras=scene.cameras[rows].resized(width, height), truths=tuple(truths))

    def request(self, index: int) -> ViewRequest:
        """What a UE sends when it asks the network for view `index`."""
        width, height = self.preset.view_width, self.preset.view_height
        pose, focal, centre = intrinsics(self.views().cameras, index, width=width, height=height)
        return ViewRequest(torch.from_numpy(pose), focal=focal, centre=centre, width=width, height=height)

    def renders(self, model: SHGrid | BakedField | LightField) -> list[Float[Tensor, "h w 3"]]:
        """The views as a model shows them, in neutral colours."""
        return [self.picture(model, index) for index in range(len(self.views()))]

    def picture(self, model: SHGrid | BakedField | LightField, index: int = 0) -> Float[Tensor, "h w 3"]:
        """View `index` as a model shows it, in neutral colours."""
        return self.seen_from(model, self.views().cameras[index : index + 1])

    def seen_from(self, model: SHGrid | BakedField | LightField, camera: Cameras) -> Float[Tensor, "h w 3"]:
        """What a model shows to one camera, at the size that a UE shows, in neutral colours."""
        width, height = self.preset.view_width, self.preset.view_height
        camera = camera.resized(width, height)
        if isinstance(model, LightField):
            with torch.no_grad():
                return model(camera, height, width)[0]
        if isinstance(model, BakedField):
            pose, focal, centre = intrinsics(camera, 0, width=width, height=height)
            image = model.render_image(pose, focal, centre=centre, width=width, height=height)
            return torch.from_numpy(image.colour)
        return render_view(model, camera).colour

    def field(self) -> SHGrid:
        """The field of notebook 3."""
        path = self.root / "field.safetensors"
        if not path.exists():
            logger.info("training the field that notebook 3 would have left in %s", path)
            self.keep_field(fit(self.scene(), seconds=self.preset.fit_seconds).model)
        return sh_grid_of(load_field(path), path)

    def keep_field(self, field: Field) -> Path:
        """Keep a field for the notebooks that follow."""
        return save_field(field, self.root / "field.safetensors", trained_on=contributors_of(self._full_scene))

    def untrained_student(self, name: str) -> LightField:
        """A student 'FAMILY SIZE' for the preset's views, laid through what the field of notebook 3 shows."""
        size = (self.preset.view_width, self.preset.view_height)
        return untrained_student(name, teacher=self.field(), scene=self.scene(), view_size=size)

    def distilled(self, name: str, *, seconds: float | None = None) -> Distillation:
        """Distil a student 'FAMILY SIZE' for the preset's time, and keep it.

        seconds: another time; such a student is not kept. The teacher's views are rendered once for all students.
        """
        sizes = self.preset
        distillation = distil(
            self.field(),
            self.scene(),
            student=self.untrained_student(name),
            seconds=seconds or sizes.distil_seconds,
            views=sizes.distil_views,
            width=sizes.view_width,
            height=sizes.view_height,
            workspace=self.root / "pseudo_views",
        )
        if seconds is None:
            self.keep_student(name, distillation.student)
        return distillation

    def student(self, name: str) -> LightField:
        """The student 'FAMILY SIZE' of notebook 5."""
        path = self._path_of(name)
        if not path.exists():
            logger.info("distilling the student that notebook 5 would have left in %s", path)
            self.distilled(name)
        return load_light_field(path)

    def students(self) -> dict[str, LightField]:
        """All of the preset's students, by name."""
        return {name: self.student(name) for name in self.preset.students}

    def keep_student(self, name: str, student: LightField) -> Path:
        """Keep a student for the notebooks that follow."""
        return save_light_field(student, self._path_of(name), trained_on=contributors_of(self._full_scene))

    def _path_of(self, student: str) -> Path:
        return self.root / "students" / f"{student.replace(' ', '_')}.safetensors"

    def importance(self, cameras: Cameras) -> Importance:
        """How much every number of the field of notebook 3 matters to pictures from around some cameras."""
        return importance_of(self.field(), cameras, settings=self._importance_settings)

    @property
    def _importance_settings(self) -> ImportanceSettings:
        return ImportanceSettings(batches=self.preset.importance_batches)

    def ladder(self) -> Ladder:
        """Every form in which the field and its students can reach a device; what was built before is found again."""
        sizes, captures = self.preset, self.captures()
        field, scene = self.field(), self.scene()
        full = (sizes.view_width, sizes.view_height)
        return Ladder(
            field,
            list(self.students().values()),
            scene=scene,
            root=self.root / "artefacts",
            reference=reference_of(field, scene, views=sizes.judged_views),
            tiers=[tier for tier in TIERS if tier.name in sizes.tiers],
            importance=self._importance_settings,
            resolutions=[(round(full[0] * scale), round(full[1] * scale)) for scale in sizes.scales],
            formats=sizes.formats,
            frames=sizes.timed_frames,
            licence=captures.licence,
            licences={capture.ue: capture.licence for capture in captures.captures},
            captures_sha256=captures_digest(captures),
        )

    def artefacts(self) -> tuple[Artefact, ...]:
        """The artefacts of notebook 6, built and measured unless they are there."""
        ladder = self.ladder()
        return ladder.build_all(ladder.shortlist())

    def profiles(self) -> tuple[DeviceProfile, ...]:
        """The bundled device profiles, none of which shows more pixels than the preset's views have."""
        width, height = self.preset.view_width, self.preset.view_height
        return tuple(
            profile.model_copy(
                update={"view_width": min(profile.view_width, width), "view_height": min(profile.view_height, height)}
            )
            for profile in device_profiles()
        )


def open_workbench(name: str, *, folder: Path | str = "") -> Workbench:
    """The workbench of the preset called `name`, in the folder of that name below $CROWDNERF_RUNS or `runs`.

    folder: captures of one's own (anything that `read_captures` recognises) instead of the concert; what is made of
    them is kept apart.
    """
    setting = os.environ.get(RUNS_VARIABLE)
    runs = Path(setting) if setting else Path(__file__).resolve().parents[1] / "runs"
    captures = Path(folder).expanduser() if str(folder) else None
    root = root_of(preset(name), runs=runs, captures=captures)
    root.mkdir(parents=True, exist_ok=True)
    return Workbench(root, preset(name), folder=captures)


def root_of(sizes: Preset, *, runs: Path, captures: Path | None) -> Path:
    """Where a workbench keeps what it makes: runs/PRESET, and for captures of one's own a folder of their name in it.

    Raises CaptureError when there are no such captures.
    """
    if captures is None:
        return runs / sizes.name
    if not captures.exists():
        raise CaptureError(f"{captures} does not exist; give a folder of photos, videos or a scene with poses")
    place = captures.resolve()
    digest = hashlib.sha256(str(place).encode()).hexdigest()[:6]
    return runs / sizes.name / f"{place.stem}-{digest}"

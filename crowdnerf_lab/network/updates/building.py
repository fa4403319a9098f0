"""A round's models: students that follow the field, and every artefact that a version offers, measured.

What is found in the round's folder is not made again.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from crowdnerf_lab.captures.bundle import CaptureSet, captures_digest
from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.contributors import contributors_of
from crowdnerf_lab.devices.ladder import Ladder
from crowdnerf_lab.devices.reference import reference_of
from crowdnerf_lab.distillation import distil
from crowdnerf_lab.distillation_state import DistillationError, DistilSettings
from crowdnerf_lab.fields.baking import TIERS
from crowdnerf_lab.fields.importance import ImportanceSettings
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.light_fields.light_field import LightField, LightFieldError
from crowdnerf_lab.light_fields.storage import load_light_field, save_light_field
from crowdnerf_lab.light_fields.students import untrained_student
from crowdnerf_lab.network.updates.event_folder import Round
from crowdnerf_lab.network.updates.intake import StoppedError
from crowdnerf_lab.network.updates.update_settings import UpdateSettings
from crowdnerf_lab.pseudo_views import PseudoViewError
from crowdnerf_lab.scene import PosedScene

log = logging.getLogger(__name__)

FOLLOWING = DistilSettings(rate=1.5e-3, warm_steps=10)
"""Of a student that has followed the field before: smaller steps, from the first on."""


def students_of(
    current: Round, field: SHGrid, scene: PosedScene, *, before: Round | None, settings: UpdateSettings
) -> list[LightField]:
    """The students, each distilled on from that of the round before, or from nothing. StoppedError: interrupted."""
    found = []
    for name in settings.students:
        file = Path("students") / f"{name.replace(' ', '_')}.safetensors"
        path, earlier = current.folder / file, before and before.folder / file
        try:
            if not path.exists():
                student = _distilled(name, field, scene, earlier, settings=settings)
                save_light_field(student, path, trained_on=contributors_of(scene))
            found.append(load_light_field(path))
        except (DistillationError, LightFieldError, PseudoViewError) as error:
            log.warning("%s has no student %s: %s", scene.name, name, error)
    return found


def artefacts_of(
    current: Round,
    field: SHGrid,
    students: list[LightField],
    scene: PosedScene,
    *,
    captures: CaptureSet,
    after: Sequence[Artefact],
    settings: UpdateSettings,
) -> tuple[Artefact, ...]:
    """The artefacts of a version, built and measured; models that cannot be built are logged and left out.

    after: those of the version before, whose coded files the new ones follow, so that deltas are small.
    """
    ladder = Ladder(
        field,
        students,
        scene=scene,
        root=current.folder / "artefacts",
        reference=reference_of(field, scene, views=min(settings.card_views, len(scene.held_out))),
        tiers=[tier for tier in TIERS if tier.name in settings.tiers],
        importance=ImportanceSettings(batches=settings.importance_batches),
        resolutions=[(settings.view_width, settings.view_height)],
        formats=[settings.format],
        codings=[settings.coding],
        frames=settings.timed_frames,
        licence=captures.licence,
        licences={capture.ue: capture.licence for capture in captures.captures},
        captures_sha256=captures_digest(captures),
        seed=settings.seed,
        brisk=True,
        after=after,
    )
    return ladder.build_all(progress=False)


def _distilled(
    name: str, field: SHGrid, scene: PosedScene, earlier: Path | None, *, settings: UpdateSettings
) -> LightField:
    size = (settings.view_width, settings.view_height)
    if earlier is not None and earlier.exists():
        student, seconds, steps = load_light_field(earlier), settings.student_seconds, settings.student_steps
    else:
        student = untrained_student(name, teacher=field, scene=scene, view_size=size, seed=settings.seed)
        seconds, steps, earlier = settings.first_student_seconds, settings.first_student_steps, None
    result = distil(
        field,
        scene,
        student=student,
        seconds=None if steps else seconds,
        steps=steps,
        views=settings.first_student_views if earlier is None else settings.student_views,
        width=size[0],
        height=size[1],
        settings=DistilSettings() if earlier is None else FOLLOWING,
        seed=settings.seed,
        threads=settings.threads,
        progress=False,
    )
    if result.interrupted:
        raise StoppedError(f"distilling {name} was interrupted")
    return result.student

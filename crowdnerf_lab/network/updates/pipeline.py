"""update_event: one round of an event, from what its UEs have sent to a published version that has learned from it.

Take in, screen, pose; refine the field with what is new; judge it against the one before on photos that neither has
met; let the students follow, bake, measure, publish. Every stage leaves its result on disk, whole or absent, and is not
done twice: killed at any moment, the same call goes on.
"""

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from crowdnerf_lab.captures.bundle import CaptureSet
from crowdnerf_lab.captures.intake.sandbox import Sandbox
from crowdnerf_lab.captures.screening.screen import Measured
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.devices.ladder import LadderError
from crowdnerf_lab.fields.sh_grid import SHGridShape
from crowdnerf_lab.fields.storage import sh_grid_of
from crowdnerf_lab.fit_settings import FitSettings
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.updates.building import artefacts_of, students_of
from crowdnerf_lab.network.updates.event_folder import EventFolder, Outcome, Plan, Round
from crowdnerf_lab.network.updates.intake import PRELOAD, StoppedError, captures_of, photos_of, senders_of, take_in
from crowdnerf_lab.network.updates.judging import gain, psnr_on_judges
from crowdnerf_lab.network.updates.publication import forget_contributor, publish_once, settle
from crowdnerf_lab.network.updates.update_settings import UpdateSettings
from crowdnerf_lab.network.updates.usable_photos import UsablePhotos, judges_among, scene_of, usable_photos
from crowdnerf_lab.network.uploads.contributions import Contribution, Contributions
from crowdnerf_lab.refinement import Learned, refine
from crowdnerf_lab.scene import PosedScene, SceneError
from crowdnerf_lab.training import TrainingError, fit
from crowdnerf_lab.weights import WeightsError

__all__ = ["EventUpdates", "StoppedError", "Update", "UpdateSettings", "update_event"]

log = logging.getLogger(__name__)

CANNOT = (SceneError, TrainingError, LadderError, WeightsError)
"""What photos may be like that nothing can be learned from them; a round says so, and others follow."""
CHECKPOINT = "fit.safetensors"
FEWEST_TO_TRAIN = 3
WORSE = "measured worse on the photos that judge; it is tried again with the next ones"


@dataclass(frozen=True)
class Update:
    """What a round did. version: that was published; None: the one before stays, for this `reason`.

    photos, new: that it learned from, and those of them that the field had not met. psnr, psnr_before: of the new field
    and of the one before on the judging photos, dB. seconds: of each stage that this call did.
    """

    event: str
    version: int | None
    reason: str
    photos: int
    new: int
    psnr: float | None
    psnr_before: float | None
    seconds: dict[str, float]

    def summary(self) -> str:
        """One line."""
        result = f"version {self.version}" if self.version is not None else f"no version: {self.reason}"
        psnr = " -> ".join(f"{value:.2f}" for value in (self.psnr_before, self.psnr) if value is not None)
        took = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in self.seconds.items())
        total = sum(self.seconds.values())
        return f"{result} from {self.photos} photos, {self.new} new; {psnr} dB; {total:.1f} s ({took})"


def update_event(home: Path, event: str, settings: UpdateSettings, *, sandbox: Sandbox | None = None) -> Update | None:
    """One round of an event of the service in `home`; None when nothing is to be learned.

    sandbox: an open one to use instead of one for this call. Raises FileError when the disk is full, FaceError when
    faces cannot be searched for, StoppedError after Ctrl-C: whatever happens, the next call goes on with what is done.
    """
    with sandbox_for(settings) if sandbox is None else nullcontext(sandbox) as opened:
        return EventUpdates(Path(home), event, settings=settings, sandbox=opened).update()


def sandbox_for(settings: UpdateSettings) -> Sandbox:
    """A sandbox to take contributions in with; a worker keeps one open."""
    return Sandbox(workers=settings.workers or len(os.sched_getaffinity(0)), preload=PRELOAD)


@dataclass
class EventUpdates:
    """Rounds of one event, one after the other. seconds: of the stages of the round in hand."""

    home: Path
    event: str
    settings: UpdateSettings
    sandbox: Sandbox
    seconds: dict[str, float] = field(default_factory=dict)
    measured: dict[str, Measured] = field(default_factory=dict)
    """What screening measured of photos; measured again after a restart."""

    def __post_init__(self) -> None:
        self.folder = EventFolder(self.home, self.event)
        self.database = Database(self.home)
        self.contributions = Contributions(self.database)
        self.catalogue = Catalogue(self.home / "catalogue")
        self._seen: tuple[object, ...] = ()

    def update(self) -> Update | None:
        """One round, or the rest of the one that was stopped. See `update_event`."""
        self.seconds = {}
        made = self._round()
        if self.seconds:
            self._say("waiting")
        return made

    def _round(self) -> Update | None:
        """All stages that have something to do."""
        self.forget()
        self.take_in()
        published = self.folder.published(self.catalogue)
        if published:
            settle(self.folder, published[0], contributions=self.contributions, ues=self._ues())
        captures = captures_of(self.folder)
        current = self._unfinished()
        if captures is None or (current is None and not self._may_learn(captures)):
            return None
        with self._stage("screen and pose"):
            usable = usable_photos(captures, self.folder, sandbox=self.sandbox, measured=self.measured)
        self._tell_refused(usable)
        plan = current.plan if current else self._planned(usable)
        if plan is None or not set(plan.photos) | set(plan.judges) <= set(usable.files):
            if current:
                current.remove()
            return None
        current = current or self.folder.new_round(plan)
        return self._learn(current, plan, usable)

    def forget(self) -> None:
        """Fulfil the wishes of those who want to be forgotten."""
        for ue in self.contributions.forget_wishes(self.event):
            with self._stage("forget"):
                forget_contributor(self.folder, ue, contributions=self.contributions, catalogue=self.catalogue)

    def take_in(self) -> int:
        """Take in what waits, at most so much as the settings say; returns how many contributions became photos."""
        waiting = self.contributions.waiting(self.event)[: self.settings.most_at_once]
        if not waiting:
            return 0
        with self._stage("take in"):
            return take_in(
                self.folder,
                waiting,
                contributions=self.contributions,
                senders=senders_of(self.database, self.event),
                sandbox=self.sandbox,
                faces=self.settings.faces,
            )

    def _learn(self, current: Round, plan: Plan, usable: UsablePhotos) -> Update:
        """The stages from a plan to a version, or to the reason why there is none."""
        try:
            scene = scene_of(plan, usable, self.settings)
            learned = self._field(current, plan, scene, moving=usable.reported_poses)
            outcome = self._judged(current, learned, scene)
            if outcome.version is None and not outcome.reason:
                outcome = self._published(current, plan, learned, scene, usable=usable, judged=outcome)
        except CANNOT as error:
            log.warning("%s: round %d came to nothing: %s", self.event, current.number, error)
            outcome = Outcome(version=None, reason=str(error), psnr=None, psnr_before=None, seconds=self.seconds)
        current.note(outcome)
        settle(self.folder, current, contributions=self.contributions, ues=self._ues())
        self.folder.tidy(self.catalogue)
        update = Update(
            event=self.event,
            version=outcome.version,
            reason=outcome.reason,
            photos=len(plan.photos),
            new=len(plan.new),
            psnr=outcome.psnr,
            psnr_before=outcome.psnr_before,
            seconds=dict(self.seconds),
        )
        log.info("%s: %s", self.event, update.summary())
        return update

    def _field(self, current: Round, plan: Plan, scene: PosedScene, *, moving: bool) -> Learned:
        """The round's field: that of the round it begins from, refined, or one trained anew."""
        if not current.has_field:
            settings = self.settings
            # Judged once, when it is trained: a curve would cost renders.
            taught = scene.with_split(scene.train.tolist(), [])
            with self._stage("train"):
                if plan.start is None:
                    result = fit(
                        taught,
                        seconds=None if settings.first_fit_steps else settings.first_fit_seconds,
                        steps=settings.first_fit_steps,
                        settings=FitSettings(shape=_shape_of(settings)),
                        seed=settings.seed,
                        refine_poses=moving,
                        threads=settings.threads,
                        checkpoint=current.folder / CHECKPOINT,
                        progress=False,
                    )
                else:
                    result = refine(
                        Learned.load(self.folder.round(plan.start).folder),
                        taught,
                        seconds=None if settings.refine_steps else settings.refine_seconds,
                        steps=settings.refine_steps,
                        new_share=settings.new_share,
                        refine_poses=moving,
                        seed=settings.seed,
                        threads=settings.threads,
                        progress=False,
                    )
                if result.interrupted:
                    raise StoppedError(f"training of {self.event} was interrupted")
                Learned.of(result, scene).save(current.folder)
            (current.folder / CHECKPOINT).unlink(missing_ok=True)
        return Learned.load(current.folder)

    def _judged(self, current: Round, learned: Learned, scene: PosedScene) -> Outcome:
        """Whether a field may be published: `reason` is empty then. A version that was published and that measures
        worse than the one before it, by what is known now, is rolled back."""
        published = self.folder.published(self.catalogue)
        views, least = self.settings.judged_views, self.settings.least_gain_db
        with self._stage("judge"):
            psnr = psnr_on_judges(learned.field, scene, views=views)
            before = [psnr_on_judges(Learned.load(old.folder).field, scene, views=views) for old in published[:2]]
        worse = bool(before) and gain(psnr, before[0]) < least
        outcome = published[0].outcome if published else None
        if worse and len(before) == 2 and gain(before[0], before[1]) < least and outcome and outcome.version:
            self.catalogue.withdraw(self.event, outcome.version, reason=WORSE)
        return Outcome(
            version=None,
            reason=WORSE if worse else "",
            psnr=psnr,
            psnr_before=before[0] if before else None,
            seconds=self.seconds,
        )

    def _published(
        self,
        current: Round,
        plan: Plan,
        learned: Learned,
        scene: PosedScene,
        *,
        usable: UsablePhotos,
        judged: Outcome,
    ) -> Outcome:
        """Students, artefacts, and the version of them, unless a contributor of it is to be forgotten."""
        teacher = sh_grid_of(learned.field, current.folder)
        before = None if plan.start is None else self.folder.round(plan.start)
        with self._stage("students"):
            students = students_of(current, teacher, scene, before=before, settings=self.settings)
        published = before and before.outcome
        with self._stage("build"):
            artefacts = artefacts_of(
                current,
                teacher,
                students,
                scene,
                captures=usable.captures,
                after=self.catalogue.artefacts(self.event, published.version) if published else (),
                settings=self.settings,
            )
        if set(self.contributions.forget_wishes(self.event)) & set(scene.captures):
            return judged.model_copy(update={"reason": "a contributor asked to be forgotten before it was published"})
        with self._stage("publish"):
            version = publish_once(
                self.catalogue,
                artefacts,
                event=self.event,
                round_id=plan.id,
                note=f"{len(plan.photos)} photos, {len(plan.new)} of them new",
            )
        return judged.model_copy(update={"version": version.number, "seconds": self.seconds})

    def _unfinished(self) -> Round | None:
        """The round to go on with. One whose beginning is no longer the newest version is dropped."""
        published = self.folder.published(self.catalogue)
        start = published[0].number if published else None
        unfinished = [found for found in self.folder.rounds() if found.outcome is None]
        for found in unfinished[:-1] if unfinished else ():
            found.remove()
        if not unfinished:
            return None
        last = unfinished[-1]
        if last.plan is not None and last.plan.start == start:
            return last
        last.remove()
        return None

    def _planned(self, usable: UsablePhotos) -> Plan | None:
        """What the next round does; None when there is too little to learn from, or nothing that was not tried."""
        settings, rounds = self.settings, self.folder.rounds()
        published = self.folder.published(self.catalogue)
        start = published[0] if published else None
        plans = [found.plan for found in rounds if found.plan]
        judges = judges_among(
            usable.files,
            met={file for plan in plans for file in plan.photos},
            before={file for plan in plans for file in plan.judges},
            every=settings.judged_every,
            most=settings.judged_views,
        )
        photos = sorted(set(usable.files) - set(judges))
        met = set(start.plan.photos) if start and start.plan else set()
        new = [file for file in photos if file not in met]
        if not new or len(photos) < max(settings.fewest_photos, FEWEST_TO_TRAIN):
            return None
        if start and len(new) < settings.new_photos and not self._waited_long():
            return None
        number = start.number if start else None
        if rounds and rounds[-1].tried_in_vain(start=number, photos=photos):
            return None
        return Plan(id=secrets.token_hex(6), start=number, photos=tuple(photos), new=tuple(new), judges=tuple(judges))

    def _may_learn(self, captures: CaptureSet) -> bool:
        """Whether it is worth looking at the photos closely: not when they are those of the last look."""
        seen = (frozenset(photo.file for photo in captures.photos), len(self.folder.rounds()), self._waited_long())
        seen += (len(self.folder.published(self.catalogue)),)
        changed, self._seen = seen != self._seen, seen
        return changed

    def _waited_long(self) -> bool:
        """Whether a contribution that is taken in has waited for its version as long as the settings allow."""
        oldest = min((each.received for each in self._all() if each.state == "taken_in"), default=time.time())
        return time.time() - oldest > self.settings.patience_s

    def _tell_refused(self, usable: UsablePhotos) -> None:
        """Say why contributions are not learned from; those that screening lets pass now wait again."""
        captures = captures_of(self.folder)
        there = [photo.file for photo in captures.photos] if captures else []
        for contribution in self._all():
            files = photos_of(contribution, there)
            if not files or contribution.state not in ("taken_in", "refused"):
                continue
            reasons = [usable.refused[file] for file in sorted(files) if file in usable.refused]
            state = "refused" if len(reasons) == len(files) else "taken_in"
            if state != contribution.state:
                self.contributions.mark([contribution.id], state=state, reason=reasons[0] if reasons else None)

    def _all(self) -> list[Contribution]:
        return [contribution for ue in self._ues() for contribution in self.contributions.of(self.event, ue)]

    def _ues(self) -> list[str]:
        return sorted(senders_of(self.database, self.event))

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """A stage: told in status.json, and timed."""
        self._say(name)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def _say(self, stage: str) -> None:
        rows = self.database.connection().execute(
            "SELECT state, count(*) FROM contributions WHERE event = ? GROUP BY state", (self.event,)
        )
        published = self.folder.published(self.catalogue)
        outcome = published[0].outcome if published else None
        self.folder.say(stage, version=outcome and outcome.version, contributions={row[0]: row[1] for row in rows})


def _shape_of(settings: UpdateSettings) -> SHGridShape:
    return SHGridShape(log2_rows=settings.log2_rows, occupancy_cells=settings.occupancy_cells)

"""refine: new photos into a trained field, in a fraction of the steps that training anew takes.

The field goes on from where it is, in the same bounds, with the occupancy that it has learned; space that only the new
photos look at is opened. What was learned of the old photos' phones is kept, too, and the new photos are drawn more
often, since the field has met the old ones many times.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.contributors import as_header, contributors_of
from crowdnerf_lab.fields.appearance import Appearance
from crowdnerf_lab.fields.storage import Field, load_field, save_field
from crowdnerf_lab.fit_settings import FitSettings
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training import Fit, Start, fit
from crowdnerf_lab.weights import WeightsError, read_tensors, write_tensors

FORMAT = "crowdnerf_lab.learned_appearance/1"
FIELD_FILE, APPEARANCE_FILE = "field.safetensors", "appearance.safetensors"
NEW_SHARE = 0.6
"""Of the drawn pixels that come from new photos."""
RATE, PYRAMID = 0.015, ((0.0, 2), (0.65, 1))
"""Adam's step size, which unsettles what is known if it is larger and learns too little if it is smaller; and when
photos shrink how much: a pixel of a small photo tells of four. On the concert, with 40 % of the photos new, in 15 % of
the steps of training anew."""


@dataclass(frozen=True)
class Learned:
    """A trained field, and what was learned beside it of the phones that took its photos.

    captures, photos: names of the rows of `appearance` (None: nothing was learned of phones). trained_on: names of the
    photos that the field has met. ues: whose they are.
    """

    field: Field
    appearance: Appearance | None
    captures: tuple[str, ...]
    photos: tuple[str, ...]
    trained_on: tuple[str, ...]
    ues: tuple[str, ...]

    @classmethod
    def of(cls, result: Fit, scene: PosedScene) -> "Learned":
        """What a fit of this scene has learned."""
        return cls(
            field=result.model,
            appearance=result.appearance,
            captures=scene.captures,
            photos=scene.image_names,
            trained_on=tuple(scene.image_names[row] for row in scene.train.tolist()),
            ues=contributors_of(scene),
        )

    def save(self, folder: Path) -> Path:
        """Write it to a folder, each of its two files whole or absent; the field last."""
        names = {"captures": self.captures, "photos": self.photos, "trained_on_photos": self.trained_on}
        header = {name: json.dumps(value) for name, value in names.items()} | as_header(self.ues)
        tensors = {} if self.appearance is None else self.appearance.state_dict()
        # A file of tensors holds one at least.
        tensors = tensors or {"nothing": torch.zeros(1)}
        write_tensors(Path(folder) / APPEARANCE_FILE, tensors, kind=FORMAT, header=header)
        save_field(self.field, Path(folder) / FIELD_FILE, trained_on=self.ues)
        return Path(folder)

    @classmethod
    def load(cls, folder: Path) -> "Learned":
        """Read what `save` wrote. Raises WeightsError naming the file that is damaged."""
        path = Path(folder) / APPEARANCE_FILE
        tensors, header = read_tensors(path, kind=FORMAT)
        try:
            captures, photos, trained_on = (
                tuple(json.loads(header[name])) for name in ("captures", "photos", "trained_on_photos")
            )
            ues = tuple(json.loads(header.get("trained_on", "[]")))
            appearance = None
            if "log_gain" in tensors:
                appearance = Appearance(tensors["capture_of_photo"], len(captures))
                appearance.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{path} is damaged ({error}); train the field beside it anew") from error
        return cls(load_field(Path(folder) / FIELD_FILE), appearance, captures, photos, trained_on, ues)


def refine(
    learned: Learned | Field,
    scene: PosedScene,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    new: Sequence[int] | None = None,
    new_share: float = NEW_SHARE,
    settings: FitSettings | None = None,
    robust: bool | None = None,
    refine_poses: bool = False,
    seed: int = 0,
    threads: int | None = None,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> Fit:
    """Train a field on within a budget of `seconds` or of `steps`, as `fit` does, with the scene's photos old and new.

    learned: the field as it is, best with what was learned of its photos' phones; it is not changed. new: rows of the
    training photos that it has not met; by default those whose names it does not know, none for a bare field.
    new_share: of the drawn pixels that come from them (never less than their share of all). settings: by default
    `refinement_settings()`; the field keeps its shape. robust, refine_poses and the rest: see `fit`.

    Raises what `fit` raises, and ValueError for a new_share out of range or photos that the scene does not train on.
    """
    if not 0 <= new_share < 1:
        raise ValueError(f"new_share must be at least 0 and less than 1, got {new_share}")
    known = learned if isinstance(learned, Learned) else None
    if new is None:
        met = set(known.trained_on if known else scene.image_names)
        new = [row for row in scene.train.tolist() if scene.image_names[row] not in met]
    start = Start(
        model=learned.field if isinstance(learned, Learned) else learned,
        appearance=None if known is None else appearance_of(known, scene),
        often=_often(scene, new, share=new_share),
    )
    return fit(
        scene,
        seconds=seconds,
        steps=steps,
        settings=settings or refinement_settings(),
        start=start,
        robust=robust,
        refine_poses=refine_poses,
        seed=seed,
        threads=threads,
        checkpoint=checkpoint,
        progress=progress,
    )


def refinement_settings() -> FitSettings:
    """Settings of `fit` for a field that has all its levels already."""
    fresh = FitSettings()
    return replace(fresh, stages=(replace(fresh.stages[-1], from_step=0),), rate=RATE, pyramid=PYRAMID)


def appearance_of(learned: Learned, scene: PosedScene) -> Appearance | None:
    """What was learned of phones and photos, in the rows of another scene; new ones begin as the average phone."""
    before = learned.appearance
    if before is None:
        return None
    appearance = Appearance(scene.capture_of_image, len(scene.captures))
    captures = _matches(scene.captures, learned.captures)
    photos = _matches(scene.image_names, learned.photos)
    with torch.no_grad():
        gains = before.log_gain - before.log_gain.mean(0)
        for row, old in captures:
            appearance.log_gain[row], appearance.vignette[row] = gains[old], before.vignette[old]
        for row, old in photos:
            appearance.log_shot[row] = before.log_shot[old]
        # What is neutral stays: the mean of all gains is that of the crowd before.
        begun = sorted(set(range(len(scene.captures))) - {row for row, _ in captures})
        if begun:
            appearance.log_gain[begun] = -appearance.log_gain.sum(0) / len(begun)
        appearance.shoulder_logit.copy_(before.shoulder_logit)
    return appearance


def _matches(names: Sequence[str], before: Sequence[str]) -> list[tuple[int, int]]:
    """Rows of what is in both, now and before."""
    known = {name: row for row, name in enumerate(before)}
    return [(row, known[name]) for row, name in enumerate(names) if name in known]


def _often(scene: PosedScene, new: Sequence[int], *, share: float) -> Float[Tensor, "photos"] | None:
    """How often to draw each photo's pixels so that the new photos get this share, if theirs is not more anyway."""
    train = scene.train.tolist()
    if strangers := sorted(set(new) - set(train)):
        raise ValueError(f"photo {strangers[0]} of scene '{scene.name}' is not trained on; new photos must be")
    sizes = {row: scene.images[row].shape[0] * scene.images[row].shape[1] for row in train}
    of_new = sum(sizes[row] for row in set(new))
    of_old = sum(sizes.values()) - of_new
    if not of_new or not of_old or of_new >= share * (of_new + of_old):
        return None
    often = torch.ones(len(scene))
    often[sorted(set(new))] = share / (1 - share) * of_old / of_new
    return often

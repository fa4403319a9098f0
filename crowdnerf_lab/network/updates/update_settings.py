"""How large and how long a round of training is while the event runs: plain numbers, without anything heavy to import.

Budgets are seconds of training, or steps where those are given: with steps the bits depend on the seed alone.
"""

from dataclasses import dataclass

from crowdnerf_lab.catalogue.card import Coding, Format


@dataclass(frozen=True)
class UpdateSettings:
    """Sizes of one round: from the contributions that wait to a published version.

    first_fit_seconds, first_fit_steps: training of an event's first field. refine_seconds, refine_steps: of every later
    one, from the one before. new_share: of the pixels drawn then that come from photos which the field has not met.
    log2_rows, occupancy_cells: of the field, see SHGridShape.
    students: 'FAMILY SIZE' of the light fields; first_student_seconds, student_seconds: training of each, in the first
    version and in later ones; first_student_views, student_views: views' worth of pixels that the teacher renders then.
    tiers, importance_batches: of baked fields (see `fields.baking`, ImportanceSettings); one tier at least, since the
    network draws its own views with one. format, coding: of the students' files. view_width, view_height: pictures that
    the models draw, pixels. timed_frames: by which a model's speed is measured; card_views: photos by which its card
    tells its quality.
    judged_every: every so many contributed photos one is never trained on and judges. judged_views: at most so many do.
    least_gain_db: PSNR by which a new field must exceed the old one on them to be published; negative: how much worse
    it may be (new photos tell of what has changed since).
    fewest_photos: below this many usable ones there is no first version. new_photos: usable new ones that start a
    round; patience_s: after so long fewer do. most_at_once: contributions that are taken in before the next round.
    photo_downscale: photos are shrunk so many times before training. faces: make faces unrecognisable on arrival.
    workers: processes that take photos in (None: one a core). threads: of training (None: all cores). seed: of
    everything random.
    """

    first_fit_seconds: float = 80.0
    first_fit_steps: int | None = None
    refine_seconds: float = 10.0
    refine_steps: int | None = None
    new_share: float = 0.6
    log2_rows: int = 19
    occupancy_cells: int = 128
    students: tuple[str, ...] = ("ray_mlp S",)
    first_student_seconds: float = 45.0
    student_seconds: float = 5.0
    first_student_steps: int | None = None
    student_steps: int | None = None
    first_student_views: int = 60
    student_views: int = 8
    tiers: tuple[str, ...] = ("200kB", "1MB", "full")
    importance_batches: int = 16
    format: Format = "onnx_int8_weights"
    coding: Coding = "progressive"
    view_width: int = 320
    view_height: int = 240
    timed_frames: int = 6
    card_views: int = 2
    judged_every: int = 10
    judged_views: int = 12
    least_gain_db: float = -0.1
    fewest_photos: int = 8
    new_photos: int = 8
    patience_s: float = 20.0
    most_at_once: int = 64
    photo_downscale: int = 1
    faces: bool = True
    workers: int | None = None
    threads: int | None = None
    seed: int = 0

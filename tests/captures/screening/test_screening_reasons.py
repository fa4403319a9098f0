"""Each reason of the screening by itself: what is found, what is let pass, and against whom a photo is judged."""

import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crowdnerf_lab.cameras import look_at
from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Consent, GpsFix, Photo, ReportedPose, concert
from crowdnerf_lab.captures.photos import PhotoError
from crowdnerf_lab.captures.screening import constructed_attacks as attacks
from crowdnerf_lab.captures.screening.measures import PhotoMeasures, measure_one, measures_of
from crowdnerf_lab.captures.screening.quality import noise_of
from crowdnerf_lab.captures.screening.report import ScreeningReport
from crowdnerf_lab.captures.screening.screen import ScreeningLimits, judge, screen
from crowdnerf_lab.captures.screening.whereabouts import angles_from_focus, distances_from_crowd, seconds_from_event

HEIGHT, WIDTH = 384, 512
YES = Consent(train=True, publish=True)
HOUR = 3600.0


def snap(seed: int, *, height: int = HEIGHT, width: int = WIDTH, grain: float = 3.0) -> np.ndarray:
    """Coloured patches of many sizes with a sensor's grain."""
    generator = np.random.default_rng(seed)
    light = sum(
        np.kron(generator.uniform(0, 1, (-(-height // side), -(-width // side), 3)), np.ones((side, side, 1)))[
            :height, :width
        ]
        for side in (8, 24, 56)
    )
    return (60 * light + generator.normal(30, grain, (height, width, 3))).clip(0, 255).astype(np.uint8)


def measured(seed: int, **changes) -> PhotoMeasures:
    """Measures of an ordinary photo that no other one is like."""
    quality = {name: changes.pop(name) for name in ("noise", "sharpness") if name in changes}
    authenticity = {name: changes.pop(name) for name in ("drawn", "framed", "grid") if name in changes}
    own = replace(
        ORDINARY.signature,
        thumbnail=torch.rand(ORDINARY.signature.thumbnail.shape, generator=torch.Generator().manual_seed(seed)),
    )
    return replace(
        ORDINARY,
        quality=replace(ORDINARY.quality, **quality),
        authenticity=replace(ORDINARY.authenticity, **authenticity),
        signature=changes.pop("signature", own),
        **changes,
    )


def at(place: float, **changes) -> Photo:
    """A photo of somebody on a ring around the origin who looks at it; place: radians."""
    eye = torch.tensor([20 * math.cos(place), 20 * math.sin(place), 1.5])
    pose = ReportedPose(camera_to_world=look_at(eye, torch.zeros(3)).tolist())
    fields = {"file": f"{place}.png", "width": WIDTH, "height": HEIGHT, "focal_px": 200.0, "time_s": 0.0}
    return Photo(**{**fields, "reported": pose, **changes})


def capture(ue: str, *photos: Photo) -> Capture:
    return Capture(ue=ue, device="Example 1", consent=YES, licence="CC0-1.0", photos=photos)


def crowd(count: int = 8, **changes) -> list[Capture]:
    return [
        capture(f"crowd{index}", *(at(index + part / 10, file=f"c{index}_{part}", **changes) for part in range(2)))
        for index in range(count)
    ]


def event(*captures: Capture, root: Path = Path("event")) -> CaptureSet:
    return CaptureSet(root=root, name="event", licence="CC0-1.0", origin_wgs84=None, captures=captures)


def judged(captures: CaptureSet, changes: dict[str, dict] | None = None, **options) -> ScreeningReport:
    """What is made of a crowd of ordinary photos, of which some measure something else."""
    files = [photo.file for photo in captures.photos]
    measures = {file: measured(seed, **(changes or {}).get(file, {})) for seed, file in enumerate(files)}
    return judge(captures, measures, **options)


def reasons(report: ScreeningReport) -> dict[str, str]:
    return {row.photo: row.check for row in report.rejected}


ORDINARY = measures_of(torch.from_numpy(snap(0)))


def test_an_ordinary_crowd_is_kept():
    assert reasons(judged(event(*crowd()))) == {}


@pytest.mark.row("S64")
@pytest.mark.parametrize(
    ("check", "value"),
    [("drawn", {"drawn": 0.5}), ("framed", {"framed": 0.06}), ("display", {"grid": 17.0})],
)
def test_what_no_lens_made_is_found_even_if_the_ue_sends_nothing_else(check, value):
    odd = capture("odd", *(at(0.5 + part / 10, file=f"odd{part}") for part in range(3)))
    report = judged(event(*crowd(), odd), {f"odd{part}": value for part in range(3)})
    assert reasons(report) == {f"odd{part}": check for part in range(3)}
    assert all("the crowd" in row.reason for row in report.rejected)


@pytest.mark.parametrize("value", [{"drawn": 0.5}, {"framed": 0.3}, {"grid": 17.0}])
def test_a_crowd_that_is_all_like_that_is_its_own_yardstick(value):
    captures = event(*crowd())
    assert reasons(judged(captures, {photo.file: value for photo in captures.photos})) == {}


@pytest.mark.parametrize("value", [{"drawn": 0.5}, {"framed": 0.3}, {"grid": 17.0}])
def test_many_pictures_of_one_ue_do_not_move_the_yardstick(value):
    flood = capture("flood", *(at(0.5 + part / 100, file=f"f{part}") for part in range(40)))
    report = judged(event(*crowd(), flood), {f"f{part}": value for part in range(40)})
    assert len(report.rejected) == 40
    assert {row.ue for row in report.rejected} == {"flood"}


def test_absolute_limits_hold_without_a_crowd():
    lone = event(capture("lone", at(0.0, file="a")))
    assert reasons(judged(lone, {"a": {"drawn": 0.9}})) == {"a": "drawn"}
    assert reasons(judged(lone, {"a": {"drawn": 0.9}}, limits=ScreeningLimits(drawn=0.95))) == {}


@pytest.mark.row("S64")
def test_small_pictures_are_found_unless_the_whole_crowd_sends_such():
    small = at(0.5, file="small", width=100, height=150)
    report = judged(event(*crowd(), capture("small", small)), {"small": {"width": 100, "height": 150}})
    assert reasons(report) == {"small": "small"}
    assert report.rejected[0].measured == 100
    assert report.rejected[0].threshold == 160
    tiny = [
        one.model_copy(update={"photos": tuple(p.model_copy(update={"width": 64, "height": 64}) for p in one.photos)})
        for one in crowd()
    ]
    same = event(*tiny)
    assert reasons(judged(same, {photo.file: {"width": 64, "height": 64} for photo in same.photos})) == {}


@pytest.mark.row("S64")
def test_a_noisy_photo_is_judged_by_its_ues_others():
    ue = capture("ue", *(at(0.5 + part / 10, file=f"n{part}") for part in range(3)))
    quiet, loud = math.log2(4 / 255), math.log2(16 / 255)
    values = [{"noise": quiet}, {"noise": quiet}, {"noise": loud}]
    assert reasons(judged(event(*crowd(), ue), {f"n{part}": values[part] for part in range(3)})) == {"n2": "noise"}
    assert reasons(judged(event(*crowd(), ue), {f"n{part}": {"noise": loud} for part in range(3)})) == {}
    invisible = [{"noise": math.log2(0.5 / 255)}, {"noise": math.log2(0.5 / 255)}, {"noise": math.log2(5 / 255)}]
    assert reasons(judged(event(*crowd(), ue), {f"n{part}": invisible[part] for part in range(3)})) == {}


def test_photos_and_a_clips_frames_of_one_ue_are_judged_apart():
    """A phone's video is quieter than its photos; a frame that is noisy among the clip's frames is still found."""
    photos = [at(0.05 * part, file=f"p{part}") for part in range(3)]
    frames = [at(0.05 * part, file=f"f{part}", from_clip="clip.mp4") for part in range(4)]
    loud, quiet = math.log2(8 / 255), math.log2(1 / 255)
    noise = {photo.file: {"noise": loud} for photo in photos} | {frame.file: {"noise": quiet} for frame in frames}
    assert reasons(judged(event(*crowd(), capture("filming", *photos, *frames)), noise)) == {}
    noise["f3"] = {"noise": loud}
    assert reasons(judged(event(*crowd(), capture("filming", *photos, *frames)), noise)) == {"f3": "noise"}


@given(st.floats(0, 30), st.integers(0, 5))
def test_noise_is_measured_as_it_was_made(deviation, seed):
    grey = np.full((96, 96, 3), 128.0) + np.random.default_rng(seed).normal(0, deviation, (96, 96, 1))
    found = 255 * 2 ** noise_of(grey.round().clip(0, 255).astype(np.uint8))
    assert found == pytest.approx(max(deviation, 0.5), rel=0.15, abs=0.3)


def test_edges_slopes_and_clipped_areas_are_no_noise():
    slope = np.repeat(np.linspace(20, 220, 256)[None, :, None], 192, axis=0).repeat(3, axis=2).astype(np.uint8)
    assert 255 * 2 ** noise_of(slope) < 1
    blocks = np.kron(np.random.default_rng(0).integers(20, 230, (12, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    assert 255 * 2 ** noise_of(blocks) < 8
    assert 255 * 2 ** noise_of(np.zeros((64, 64, 3), dtype=np.uint8)) == pytest.approx(0.5)
    assert 255 * 2 ** noise_of(np.zeros((1, 1, 3), dtype=np.uint8)) == pytest.approx(0.5)


@pytest.mark.row("S64")
@pytest.mark.parametrize("off", [HOUR, -HOUR, 24 * HOUR, 365.25 * 24 * HOUR])
def test_a_clock_that_is_off_is_found(off):
    timed = [
        capture(f"crowd{i}", *(at(i + p / 10, file=f"c{i}_{p}", time_s=60.0 * i + p) for p in range(2)))
        for i in range(8)
    ]
    late = capture("late", *(at(0.5 + p / 10, file=f"l{p}", time_s=200.0 + off + p) for p in range(2)))
    report = judged(event(*timed, late))
    assert reasons(report) == {"l0": "time", "l1": "time"}
    assert report.rejected[0].measured == pytest.approx(abs(off), rel=0.1)


def test_photos_without_a_time_or_a_place_are_not_judged_by_it():
    timed = [capture(f"crowd{i}", at(float(i), file=f"c{i}", time_s=1e7 + 60.0 * i)) for i in range(8)]
    unknown = capture("unknown", at(0.5, file="u", time_s=0.0, reported=None))
    report = judged(event(*timed, unknown))
    assert reasons(report) == {}
    known = {row.check: row.measured for row in report.rows if row.photo == "u"}
    assert math.isnan(known["time"])
    assert math.isnan(known["place"])


def test_a_long_event_is_as_long_as_it_is():
    times = [capture(f"crowd{i}", at(float(i), file=f"c{i}", time_s=1 + 900.0 * i)) for i in range(24)]
    assert reasons(judged(event(*times))) == {}


@pytest.mark.row("S64")
def test_a_place_far_from_the_crowd_is_found_and_gps_counts_as_well_as_poses():
    home = capture(
        "home", *(at(0.5, file=f"h{p}", reported=None, gps=GpsFix(position=(900.0, -300.0, 5.0))) for p in range(2))
    )
    report = judged(event(*crowd(), home))
    assert reasons(report) == {"h0": "place", "h1": "place"}
    assert report.rejected[0].measured == pytest.approx(math.hypot(900, 300), abs=30)
    vague = capture(
        "vague", at(0.5, file="v", reported=None, gps=GpsFix(position=(900.0, -300.0, 5.0), accuracy_m=400.0))
    )
    assert reasons(judged(event(*crowd(), vague))) == {}


def test_a_wide_crowd_is_as_wide_as_it_is():
    wide = [
        capture(
            f"w{i}",
            at(0.0, file=f"w{i}", reported=None, gps=GpsFix(position=(400.0 * math.cos(i), 400.0 * math.sin(i), 0.0))),
        )
        for i in range(20)
    ]
    assert reasons(judged(event(*wide))) == {}


def test_positions_that_share_no_frame_are_not_compared():
    far = ReportedPose(camera_to_world=look_at(torch.tensor([5e3, 0.0, 0.0]), torch.zeros(3)).tolist())
    captures = event(*crowd(), capture("far", at(0.0, file="far", reported=far)))
    assert reasons(judged(captures)) == {"far": "place"}
    assert "place" not in reasons(judged(replace(captures, coordinates="metric"))).values()


def test_half_of_the_ues_cannot_move_the_middle():
    owners = {f"p{i}": f"ue{i}" for i in range(9)}
    places = {f"p{i}": (float(i), 0.0, 0.0) if i < 5 else (1e5, 1e5, 0.0) for i in range(9)}
    near = distances_from_crowd(places, owners)
    assert all(near[f"p{i}"] < 10 for i in range(5))
    assert all(near[f"p{i}"] > 1e5 for i in range(5, 9))
    assert distances_from_crowd({}, {}) == {}
    assert seconds_from_event({}, {}) == {}
    assert seconds_from_event({"p0": 0.0, "p1": 0.0}, owners) == {"p0": 0.0, "p1": 0.0}


def test_a_heading_is_a_direction_where_there_is_no_attitude():
    photos = []
    for index in range(8):
        azimuth = index * math.pi / 4
        heading = (math.pi / 2 - (azimuth + math.pi)) % (2 * math.pi)
        away = (heading + math.pi) % (2 * math.pi)
        fix = GpsFix(
            position=(20 * math.cos(azimuth), 20 * math.sin(azimuth), 1.0), heading=away if index == 3 else heading
        )
        photos.append(at(azimuth, file=f"p{index}", reported=None, gps=fix))
    angles = angles_from_focus(photos)
    assert angles.pop("p3") == pytest.approx(math.pi, abs=0.05)
    assert max(angles.values()) < 0.05


@pytest.mark.row("S64")
def test_of_copies_across_ues_the_best_is_kept():
    shared = {"signature": replace(ORDINARY.signature, width=400, height=300)}
    smaller = {"signature": replace(ORDINARY.signature, width=200, height=150)}
    thief = capture("thief", at(0.5, file="t"))
    report = judged(event(*crowd(), thief), {"c3_1": shared, "t": smaller})
    assert reasons(report) == {"t": "duplicate"}
    assert "the same picture as c3_1" in report.rejected[0].reason
    assert reasons(judged(event(*crowd(), thief), {"c3_1": smaller, "t": shared})) == {"c3_1": "duplicate"}


def test_a_copy_of_a_photo_that_is_rejected_anyway_takes_its_place():
    original = {"signature": replace(ORDINARY.signature, width=400, height=300), "drawn": 0.9}
    copy = {"signature": replace(ORDINARY.signature, width=200, height=150)}
    report = judged(event(*crowd(), capture("other", at(0.5, file="t"))), {"c3_1": original, "t": copy})
    assert reasons(report) == {"c3_1": "drawn"}


def test_measures_travel_between_processes_and_say_the_same(tmp_path):
    ues = {f"ue{i}": [snap(10 * i + j) for j in range(2)] for i in range(3)}
    captures = []
    for ue, pictures in ues.items():
        photos = []
        for index, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / f"{ue}_{index}.png")
            photos.append(at(int(ue[2:]) + index / 10, file=f"{ue}_{index}.png"))
        captures.append(capture(ue, *photos))
    (tmp_path / "ue1_1.png").write_bytes(b"no picture")
    events = event(*captures, root=tmp_path)
    alone, several = (screen(events, workers=workers, progress=False) for workers in (1, 2))
    assert alone[0] == several[0]
    np.testing.assert_equal([vars(row) for row in alone[1].rows], [vars(row) for row in several[1].rows])
    assert reasons(several[1]) == {"ue1_1.png": "readable"}


def test_a_picture_is_measured_by_itself(tmp_path):
    Image.fromarray(snap(3)).save(tmp_path / "a.png")
    one = measure_one(tmp_path / "a.png")
    assert (one.width, one.height) == (WIDTH, HEIGHT)
    again = pickle.loads(pickle.dumps(one))
    assert again.quality == one.quality
    assert again.authenticity == one.authenticity
    with pytest.raises(PhotoError, match="does not exist"):
        measure_one(tmp_path / "b.png")


def test_what_was_not_measured_is_unreadable():
    captures = event(*crowd(2))
    report = judge(captures, {})
    assert {row.check for row in report.rejected} == {"readable"}
    assert "was not measured" in report.rejected[0].reason
    with pytest.raises(ValueError, match="workers is 0"):
        screen(captures, workers=0)


@pytest.mark.row("S64")
def test_attacks_among_the_concerts_photos_are_called_by_their_names(tmp_path):
    captures = concert()
    some = captures.keeping([photo.file for photo in captures.photos[45:69]])
    stolen = np.array(Image.open(captures.path_of(captures.photos[50].file)))
    sent = {
        "drawn": attacks.as_jpeg(attacks.screenshot()),
        "framed": attacks.letterboxed(np.array(Image.open(captures.path_of(captures.photos[10].file)))),
        "display": attacks.shown_on_display(stolen, pitch=3.1),
        "small": attacks.resized(np.array(Image.open(captures.path_of(captures.photos[20].file))), longer_side=120),
        "duplicate": attacks.as_jpeg(attacks.cropped(stolen)),
    }
    uploads = []
    for check, picture in sent.items():
        Image.fromarray(picture).save(tmp_path / f"{check}.png")
        height, width = picture.shape[:2]
        photo = captures.photos[50].model_copy(update={"file": f"{check}.png", "width": width, "height": height})
        uploads.append(capture(check, photo))
    for photo in some.photos:
        (tmp_path / photo.file).parent.mkdir(exist_ok=True)
        (tmp_path / photo.file).write_bytes(captures.path_of(photo.file).read_bytes())
    report = screen(replace(some, root=tmp_path, captures=(*some.captures, *uploads)), progress=False)[1]
    assert {row.ue: row.check for row in report.rejected if row.ue in sent} == {check: check for check in sent}

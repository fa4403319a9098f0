"""Forgetting a contributor: nothing of theirs remains anywhere, others keep everything, a kill leaves no half."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from crowdnerf_lab.captures.bundle import (
    Capture,
    CaptureSet,
    Clip,
    Consent,
    Photo,
    ReferenceView,
    Truth,
    read_bundle,
    write_captures,
)
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.photos import read_photo
from crowdnerf_lab.captures.privacy.erasure import note_path
from crowdnerf_lab.captures.privacy.faces import FaceSearch
from crowdnerf_lab.captures.privacy.forgetting import ForgetError, forget, was_forgotten
from crowdnerf_lab.captures.privacy.publishing import LEDGER, publications_of, published
from crowdnerf_lab.captures.privacy.tombstones import TOMBSTONES
from crowdnerf_lab.contributors import as_header

STILL = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))
WHO = ("ann", "ben", "eve")


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def captures_at(root: Path) -> CaptureSet:
    """Three UEs, each with a photo, its clean twin and mask, a clip and a frame of it, a view and a stray sidecar."""
    captures, views = [], []
    for number, ue in enumerate(WHO):
        named = [f"train/{ue}_0.png", f"clean/{ue}_0.png", f"mask/{ue}_0.png", f"{ue}/frame.png", f"views/{ue}.png"]
        for index, file in enumerate(named):
            picture(root / file, 10 * number + index)
        (root / ue / "clip.mp4").write_bytes(b"film " + ue.encode())
        (root / ue / "sidecar.xmp").write_text(f"shot by {ue}")
        truth = Truth(
            camera_to_world=STILL,
            exposure_ev=0,
            white_balance=(1, 1, 1),
            blur_px=0,
            spoiled_by=None,
            occluded=0,
            clean_file=named[1],
            occluder_mask_file=named[2],
        )
        size = {"width": 16, "height": 12, "focal_px": 15.0}
        photos = (
            Photo(file=named[0], time_s=0, truth=truth, faces=0, **size),
            Photo(file=named[3], time_s=1, from_clip=f"{ue}/clip.mp4", faces=0, **size),
        )
        captures.append(
            Capture(
                ue=ue,
                device="phone",
                consent=Consent(train=True, publish=True),
                licence="CC-BY-4.0",
                photos=photos,
                clips=(Clip(file=f"{ue}/clip.mp4", time_s=0),),
            )
        )
        views.append(ReferenceView(file=named[4], split="moment", camera_to_world=STILL, ue=ue, **size))
    event = CaptureSet(
        root=root,
        name="event",
        licence="CC-BY-4.0",
        origin_wgs84=None,
        captures=tuple(captures),
        views=tuple(views),
    )
    write_captures(event, root)
    lines = [{"version": 1, "faces": True}] + [
        {"digest": "0", "file": "x.jpg", "ue": ue, "photos": [{"file": f"late/{ue}.png"}]} for ue in WHO
    ]
    for number, ue in enumerate(WHO):
        picture(root / f"late/{ue}.png", 100 + number)
    (root / ".ingest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
    return read_bundle(root)


@pytest.fixture
def place(tmp_path) -> Path:
    """A lab: captures at home, a publication of them, caches of three kinds, models."""
    home = captures_at(tmp_path / "home")
    published(home, tmp_path / "out", search=FaceSearch(turns=(), enlarged=1.0), progress=False)
    motion = tmp_path / "caches" / "colmap"
    for name, seeds in (("with_ann", (10, 0)), ("without_ann", (10, 20))):
        for seed in seeds:
            picture(motion / name / "pictures" / f"{seed}.png", seed)
        (motion / name / "features.db").write_bytes(b"features")
    views = tmp_path / "caches" / "pseudo_views"
    views.mkdir()
    (motion / "with_ann" / ".features.db.x.partial").write_bytes(b"half")
    (views / "views.npy").write_bytes(b"rendered")
    (views / "views.json").write_text("{}")
    models = tmp_path / "models"
    for name, trained_on in (("of_ann", ("ann", "ben")), ("of_ben", ("ben",)), ("old", ())):
        models.mkdir(exist_ok=True)
        save_file({"w": np.zeros(1)}, models / f"{name}.safetensors", metadata=as_header(trained_on) or None)
    for ue in ("ann", "ben"):
        card = {"provenance": {"trained_on": [{"ue": ue, "licence": "CC0-1.0"}]}}
        (models / f"artefact_{ue}").mkdir()
        (models / f"artefact_{ue}" / "card.json").write_text(json.dumps(card))
        (models / f"artefact_{ue}" / "model.onnx").write_bytes(b"graph")
    return tmp_path


def forget_ann(place: Path):
    caches = [place / "caches" / "colmap", place / "caches" / "pseudo_views"]
    return forget("ann", place / "home", caches=caches, models=place / "models")


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def check_forgotten(place: Path) -> None:
    """Nothing of ann is left: no file, no name, no picture under any name; ben and eve have all that they had."""
    home, out = read_bundle(place / "home"), read_bundle(place / "out")
    assert [capture.ue for capture in home.captures] == ["ben", "eve"]
    assert len(out.captures) == 2
    everything = [path for root in (home.root, out.root, place / "caches") for path in root.rglob("*")]
    assert not [path for path in everything if "ann" in path.name.split("without_")[0]]
    assert not [path for path in everything if path.is_file() and b"ann" in path.read_bytes()]
    hers = [np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8) for seed in (0, 1, 2, 3, 4, 100)]
    shown = [read_photo(path).numpy() for path in everything if path.suffix == ".png"]
    assert not any(np.array_equal(image, other) for image in hers for other in shown)
    for ue in ("ben", "eve"):
        assert {f"{ue}/clip.mp4", f"{ue}/sidecar.xmp", f"late/{ue}.png"} < files(home.root)
    assert not [name for name in files(home.root) | files(out.root) if "forgetting" in name or ".partial" in name]
    (publication,) = publications_of(home.root)
    assert set(publication.pseudonyms) == {"ben", "eve"}
    assert was_forgotten(home.root, "ann")


@pytest.mark.row("S63")
def test_nothing_of_a_contributor_remains_and_models_are_named(place):
    report = forget_ann(place)
    check_forgotten(place)
    home, models = place / "home", place / "models"
    assert {path.relative_to(home).as_posix() for path in report.removed if path.is_relative_to(home)} == {
        "train/ann_0.png",
        "clean/ann_0.png",
        "mask/ann_0.png",
        "views/ann.png",
        "late/ann.png",
        "ann/frame.png",
        "ann/clip.mp4",
        "ann/sidecar.xmp",
    }
    assert not (home / "ann").exists()
    caches = place / "caches"
    assert set(report.caches) == {
        caches / "colmap" / "with_ann",
        caches / "pseudo_views" / "views.npy",
        caches / "pseudo_views" / "views.json",
    }
    assert files(caches / "colmap") == {
        "without_ann/features.db",
        "without_ann/pictures/10.png",
        "without_ann/pictures/20.png",
    }
    assert report.published == (place / "out",)
    assert set(report.trained) == {models / "of_ann.safetensors", models / "artefact_ann"}
    assert report.silent == (models / "old.safetensors",)
    assert "2 models learned from them" in report.summary()
    assert "ann" not in report.summary()


def test_copies_under_other_names_go_too_but_not_what_others_sent(place):
    home = place / "home"
    shutil.copy(home / "train" / "ann_0.png", home / "backup.png")
    shutil.copy(home / "train" / "ann_0.png", home / "train" / "ben_0.png")
    report = forget_ann(place)
    assert not (home / "backup.png").exists()
    assert report.shared == (home / "train" / "ben_0.png",)
    assert (home / "train" / "ben_0.png").exists()


def test_forgetting_twice_is_fine_and_a_tombstone_tells_no_name(place):
    forget_ann(place)
    again = forget_ann(place)
    assert again.earlier
    assert again.removed == ()
    stones = (place / "home" / TOMBSTONES).read_text()
    assert "ann" not in stones
    assert not was_forgotten(place / "home", "ben")
    forget("ben", place / "home", tombstone=False)
    assert not was_forgotten(place / "home", "ben")
    with pytest.raises(ForgetError, match="there is no contributor 'ben'"):
        forget("ben", place / "home")


def test_a_published_folder_that_moved_is_told_and_reached_when_named(place):
    (place / "out").rename(place / "elsewhere")
    report = forget_ann(place)
    assert report.unreached == (place / "out",)
    assert len(read_bundle(place / "elsewhere").captures) == 3
    again = forget("ann", place / "home", published=place / "elsewhere")
    assert again.published == (place / "elsewhere",)
    assert len(again.removed) == 3
    assert len(read_bundle(place / "elsewhere").captures) == 2


def test_several_folders_of_captures_and_missing_files(place):
    write_captures(read_bundle(place / "home"), place / "screened")
    (place / "home" / "train" / "ann_0.png").unlink()
    forget("ann", [place / "home", place / "screened"])
    for folder in ("home", "screened"):
        assert [capture.ue for capture in read_bundle(place / folder).captures] == ["ben", "eve"]
        assert not list((place / folder).rglob("*ann*"))


@pytest.mark.parametrize("ue", ["nobody", "", "../home", "/etc/passwd", "ann/../ben", "a\0b", "ann "])
def test_unknown_and_hostile_names_are_refused_and_nothing_goes(place, ue):
    before = files(place)
    with pytest.raises(ForgetError, match="there is no contributor"):
        forget(ue, place / "home")
    assert files(place) == before


@pytest.mark.parametrize("file", ["../outside.png", "/tmp/outside.png", "link/secret.png", ".."])
def test_a_manifest_that_names_files_outside_removes_nothing(place, file):
    outside = place / "outside"
    picture(outside / "secret.png", 7)
    picture(place / "outside.png", 8)
    (place / "home" / "link").symlink_to(outside)
    manifest = place / "home" / "manifest.json"
    document = json.loads(manifest.read_text())
    document["captures"][0]["photos"][0]["file"] = file
    manifest.write_text(json.dumps(document))
    before = files(place)
    with pytest.raises(ForgetError, match="correct the manifest, nothing was removed"):
        forget_ann(place)
    assert files(place) == before


def test_a_link_is_removed_and_not_what_it_points_to(place):
    picture(place / "outside.png", 7)
    entry = place / "home" / "train" / "ann_0.png"
    entry.unlink()
    entry.symlink_to(place / "outside.png")
    forget_ann(place)
    assert not entry.is_symlink()
    assert (place / "outside.png").exists()


def test_folders_that_are_no_caches_are_refused_before_anything_goes(place):
    before = files(place)
    for folder in (place / "models", place / "home", place):
        with pytest.raises(ForgetError, match="is no cache; nothing was removed"):
            forget("ann", place / "home", caches=folder)
    assert files(place) == before
    forget("ann", place / "home", caches=place / "absent")


def test_damaged_manifests_and_ledgers_are_named(place):
    (place / "home" / LEDGER).write_text("{}  ]")
    with pytest.raises(CaptureError, match=r"publications\.json is not JSON"):
        forget_ann(place)
    note_path(place / "home", "ann").write_text('{"ue": "ann"}')
    (place / "home" / LEDGER).unlink()
    with pytest.raises(CaptureError, match=r"\.forgetting-.*\.json: files: Field required"):
        forget_ann(place)
    (place / "home" / "manifest.json").write_text('{"format": 3}')
    with pytest.raises(CaptureError, match=r"manifest\.json"):
        forget_ann(place)


KILLED_AT = """
import os, shutil, signal, sys
from pathlib import Path
from tests.captures.privacy.test_forgetting import forget_ann
changes = 0

def counted(change):
    def run(*arguments, **options):
        global changes
        if changes == at:
            os.kill(os.getpid(), signal.SIGKILL)
        changes += 1
        return change(*arguments, **options)
    return run

for name in ("replace", "unlink", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))
for at in range(0, 200, 3):
    place = Path(sys.argv[1]) / str(at)
    shutil.copytree(sys.argv[2], place)
    # The ledger knows the publication by its own path.
    ledger = place / "home" / "publications.json"
    ledger.write_text(ledger.read_text().replace(sys.argv[2], str(place)))
    changes = -10**9
    child = os.fork()
    if child == 0:
        changes = 0
        try:
            forget_ann(place)
        except BaseException as error:
            print(at, repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
print(at)
"""


def test_killed_at_any_moment_the_same_call_finishes(place, tmp_path_factory):
    """kill -9 before every third change to the disk, one after the other; then the call again."""
    copies = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", KILLED_AT, str(copies), str(place)]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    kills = int(run.stdout)
    assert kills > 30
    check_forgotten(copies / str(kills))
    for at in range(0, kills, 3):
        forget_ann(copies / str(at))
        check_forgotten(copies / str(at))

"""Damaged exports of every posed format: refused in words, or read without the damaged part, never a crash or a lie."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crowdnerf_lab.captures.bundle import read_bundle
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.reading import read_captures
from tests.captures.formats.known_scene import SIZE, KnownCamera, known_cameras, pictures, quaternion
from tests.captures.formats.test_colmap import write_binary, write_text
from tests.captures.fuzzing import Mutant, accepted, assert_noticed, json_mutants, many, mutants

CAMERAS = known_cameras(3)
POSES = ("transform", "transform_matrix", "camera_to_world", "poses", "cameraPoseARFrame", "intrinsics", "K")


def transforms_document() -> dict[str, Any]:
    frames = [{"file_path": f"images/{c.name}", "transform_matrix": c.opengl.tolist()} for c in CAMERAS]
    lens = {"fl_x": 55.0, "fl_y": 57.0, "cx": 33.0, "cy": 22.5, "w": SIZE[0], "h": SIZE[1], "k1": 0.01}
    return {"camera_model": "OPENCV", **lens, "frames": frames}


def record3d_document() -> dict[str, Any]:
    poses = [[*np.roll(quaternion(c.opengl[:3, :3]), -1).tolist(), *c.eye.tolist()] for c in CAMERAS]
    return {"K": [55.0, 0, 0, 0, 57.0, 0, 33.0, 22.5, 1], "w": SIZE[0], "h": SIZE[1], "fps": 30, "poses": poses}


def polycam_document(camera: KnownCamera) -> dict[str, Any]:
    entries = {f"t_{i}{j}": float(camera.opengl[i, j]) for i in range(3) for j in range(4)}
    lens = {"fx": 55.0, "fy": 57.0, "cx": 33.0, "cy": 22.5, "width": SIZE[0], "height": SIZE[1]}
    return {**entries, **lens, "timestamp": 1_000_000}


def scanner_document(camera: KnownCamera) -> dict[str, Any]:
    pose, matrix = camera.opengl.ravel().tolist(), [55.0, 0, 33.0, 0, 57.0, 22.5, 0, 0, 1]
    return {"cameraPoseARFrame": pose, "intrinsics": matrix, "time": 12.5}


def bundle_document() -> dict[str, Any]:
    photos = [
        {
            "file": f"images/{c.name}",
            "width": SIZE[0],
            "height": SIZE[1],
            "focal_px": 55.0,
            "time_s": 1.0,
            "gps": {"position": [1.0, 2.0, 3.0], "accuracy_m": 4.0, "heading": 1.0},
            "reported": {"camera_to_world": c.opencv[:3].tolist()},
        }
        for c in CAMERAS
    ]
    consent = {"train": True, "publish": False}
    capture = {"ue": "ue00", "device": "phone", "consent": consent, "licence": "CC0", "photos": photos, "clips": []}
    head = {"format": "crowdnerf_lab.captures", "version": 2, "name": "event", "licence": "CC0"}
    return {**head, "coordinates": "enu", "origin_wgs84": [55.0, 13.0, 0.0], "captures": [capture], "views": []}


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    w, *axis = quaternion(rotation)
    return 2 * np.arctan2(np.linalg.norm(axis), w) * np.array(axis) / np.linalg.norm(axis)


def write_arkitscenes(folder: Path) -> None:
    lines = []
    for index, camera in enumerate(CAMERAS):
        inverse = np.linalg.inv(camera.opencv)
        numbers = [100.0 + index, *rotation_vector(inverse[:3, :3]), *inverse[:3, 3]]
        lines.append(" ".join(f"{number:.9f}" for number in numbers))
        picture(folder / "lowres_wide" / f"4242_{100 + index}.000.png")
        lens = folder / "lowres_wide_intrinsics" / f"4242_{100 + index}.000.pincam"
        lens.parent.mkdir(exist_ok=True)
        lens.write_text(f"{SIZE[0]} {SIZE[1]} 55 57 33 22.5\n")
    (folder / "lowres_wide.traj").write_text("\n".join(lines) + "\n")


def write_llff(folder: Path) -> None:
    pictures(folder / "images", CAMERAS)
    rows = []
    for camera in CAMERAS:
        pose = np.column_stack([camera.down, camera.right, -camera.forward, camera.eye, [SIZE[1], SIZE[0], 55.0]])
        rows.append([*pose.ravel(), 0.5, 20.0])
    np.save(folder / "poses_bounds.npy", np.array(rows))


def write_phototourism(folder: Path) -> None:
    write_colmap(write_binary)(folder)
    rows = [f"{c.name}\t{10 + i}\t{'test' if i else 'train'}\tevent" for i, c in enumerate(CAMERAS)]
    (folder / "event.tsv").write_text("filename\tid\tsplit\tdataset\n" + "\n".join(rows) + "\n")


def write_colmap(write: Callable[[Path, list[KnownCamera]], None]) -> Callable[[Path], None]:
    def export(folder: Path) -> None:
        pictures(folder / "images", CAMERAS)
        write(folder / "sparse/0", CAMERAS)

    return export


def write_json(name: str, document: Any, images: str = "images") -> Callable[[Path], None]:
    def export(folder: Path) -> None:
        pictures(folder / images, CAMERAS)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(document))

    return export


def write_numbered(folder: Path) -> None:
    for index in range(len(CAMERAS)):
        picture(folder / "rgb" / f"{index}.jpg")
    (folder / "metadata.json").write_text(json.dumps(record3d_document()))


def write_polycam(folder: Path) -> None:
    pictures(folder / "keyframes/images", CAMERAS)
    (folder / "keyframes/cameras").mkdir(parents=True)
    for camera in CAMERAS:
        path = folder / "keyframes/cameras" / f"{Path(camera.name).stem}.json"
        path.write_text(json.dumps(polycam_document(camera)))


def write_scanner(folder: Path) -> None:
    for index, camera in enumerate(CAMERAS):
        picture(folder / f"frame_{index:05d}.jpg")
        (folder / f"frame_{index:05d}.json").write_text(json.dumps(scanner_document(camera)))


def write_stray(folder: Path) -> None:
    lines = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    for index, camera in enumerate(CAMERAS):
        picture(folder / "rgb" / f"{index:06d}.jpg")
        numbers = [*camera.eye, *np.roll(quaternion(camera.opencv[:3, :3]), -1)]
        lines.append(f"{100 + index}, {index:06d}, " + ", ".join(f"{number:.9f}" for number in numbers))
    (folder / "odometry.csv").write_text("\n".join(lines) + "\n")
    (folder / "camera_matrix.csv").write_text("55.0, 0.0, 33.0\n0.0, 57.0, 22.5\n0.0, 0.0, 1.0\n")


def pose_log_document() -> dict[str, Any]:
    frames = [
        {"image": c.name, "timestamp": 10.0 + i, "transform": c.opengl.tolist(), "intrinsics": [55.0, 57.0, 33.0, 22.5]}
        for i, c in enumerate(CAMERAS)
    ]
    return {"frames": frames}


def write_pose_table(folder: Path) -> None:
    pictures(folder / "images", CAMERAS)
    lines = ["image,timestamp,tx,ty,tz,qx,qy,qz,qw,fx,fy,cx,cy"]
    for index, camera in enumerate(CAMERAS):
        numbers = [*camera.eye, *np.roll(quaternion(camera.opengl[:3, :3]), -1), 55.0, 57.0, 33.0, 22.5]
        lines.append(f"{camera.name},{8 + index}," + ",".join(f"{number:.9f}" for number in numbers))
    (folder / "poses.csv").write_text("\n".join(lines) + "\n")


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (200, 100, 50)).save(path)


def numbers_of_poses(path: tuple[Any, ...]) -> bool:
    """Numbers without which a camera cannot be placed; not the last row of a matrix, which says nothing."""
    if path[0] in ("t_00", "t_12", "t_23", "fx"):
        return len(path) == 1
    lists = [index for index, part in enumerate(path) if part in POSES]
    if not lists or not isinstance(path[-1], int) or len(path) < lists[0] + 2:
        return False
    where, within = path[lists[0]], path[lists[0] + 1 :]
    return {
        "transform": len(within) == 2 and within[0] < 3,
        "transform_matrix": len(within) == 2 and within[0] < 3,
        "camera_to_world": len(within) == 2,
        "poses": len(within) == 2,
        "cameraPoseARFrame": within[0] < 12,
        "intrinsics": within[0] in (0, 2, 4, 5),
        "K": within[0] in (0, 4, 6, 7),
    }[where]


def of_json(document: Any) -> st.SearchStrategy[Mutant]:
    return json_mutants(document, numbers=numbers_of_poses)


EXPORTS = {
    "transforms": (write_json("transforms.json", transforms_document()), "transforms.json", of_json),
    "bundle": (write_json("manifest.json", bundle_document()), "manifest.json", of_json),
    "record3d": (write_numbered, "metadata.json", of_json),
    "polycam": (write_polycam, "keyframes/cameras/00001.json", of_json),
    "scanner app": (write_scanner, "frame_00001.json", of_json),
    "colmap cameras.bin": (write_colmap(write_binary), "sparse/0/cameras.bin", None),
    "colmap images.bin": (write_colmap(write_binary), "sparse/0/images.bin", None),
    "colmap cameras.txt": (write_colmap(write_text), "sparse/0/cameras.txt", None),
    "colmap images.txt": (write_colmap(write_text), "sparse/0/images.txt", None),
    "llff": (write_llff, "poses_bounds.npy", None),
    "arkitscenes": (write_arkitscenes, "lowres_wide.traj", None),
    "stray scanner odometry": (write_stray, "odometry.csv", None),
    "stray scanner lens": (write_stray, "camera_matrix.csv", None),
    "pose table": (write_pose_table, "poses.csv", None),
    "pose log": (write_json("poses.json", pose_log_document()), "poses.json", of_json),
    "phototourism": (write_phototourism, "event.tsv", None),
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every format's files, whole; a test that damages one puts it back."""
    folders = {}
    for name, (write, _, _) in EXPORTS.items():
        folders[name] = tmp_path_factory.mktemp("export") / "scene"
        folders[name].mkdir()
        write(folders[name])
    return folders


@pytest.mark.parametrize("name", EXPORTS)
def test_the_whole_export_is_read(exports, name):
    captures = accepted(read_captures, exports[name])
    assert captures is not None
    assert len(captures.photos) == 3
    assert captures.source.left_out == ()
    assert all(photo.camera or photo.reported for photo in captures.photos)


@pytest.mark.parametrize("name", EXPORTS)
@many(50)
@given(data=st.data())
def test_a_damaged_export_is_refused_or_read_without_the_damage(exports, name, data):
    folder, (_, target, of_document) = exports[name], EXPORTS[name]
    whole = (folder / target).read_bytes()
    binary = target.endswith((".bin", ".npy"))
    mutant = data.draw(of_document(json.loads(whole)) if of_document else mutants(whole, cut_noticed=binary))
    try:
        (folder / target).write_bytes(mutant.content)
        captures = accepted(read_captures, folder)
    finally:
        (folder / target).write_bytes(whole)
    assert_noticed(mutant, captures)


@many(40)
@given(data=st.data())
def test_a_damaged_manifest_is_refused_by_its_own_reader(exports, data):
    """`read_bundle` leaves nothing out: it takes a manifest whole or not at all."""
    path = exports["bundle"] / "manifest.json"
    whole = path.read_bytes()
    mutant = data.draw(of_json(json.loads(whole)))
    try:
        path.write_bytes(mutant.content)
        captures = accepted(read_bundle, path)
    finally:
        path.write_bytes(whole)
    assert captures is None or not mutant.noticed


def test_the_fuzz_can_fail(exports):
    """A reader that lets a damaged pose through is caught."""
    whole = read_captures(exports["transforms"])
    first = whole.captures[0].photos[0]
    assert first.camera is not None
    broken = first.camera.model_copy(update={"camera_to_world": ((float("nan"),) * 4,) * 3})
    photo = first.model_copy(update={"camera": broken})
    capture = whole.captures[0].model_copy(update={"photos": (photo,)})

    def careless(_: Path) -> Any:
        return type(whole)(**{**vars(whole), "captures": (capture,)})

    with pytest.raises((AssertionError, ValueError)):
        accepted(careless, exports["transforms"])
    with pytest.raises(AssertionError, match="in silence"):
        assert_noticed(Mutant(b"", "cut", noticed=True), whole)
    with pytest.raises(CaptureError):
        read_captures(exports["transforms"] / "nothing")

"""Peers: photos as ideal lenses show them, files as they read them, splats as they are meant, and a clock that fits."""

import json
import math
import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.peers.opensplat import Clock, run_opensplat
from benchmarks.peers.project import PeerError, ScenePoints, through_ideal_lenses, triangulated, write_project
from benchmarks.peers.splats import C0, read_splats, render_splats
from crowdnerf_lab.cameras import look_at, pinhole, project
from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.rendering import render_view
from tests.toy_field import ToyField, toy_scene

POINTS = ScenePoints(positions=torch.rand(5, 3), colours=torch.randint(0, 255, (5, 3)).to(torch.uint8))


def splat_ply(path: Path, rows: list[dict[str, float]]) -> Path:
    """A PLY of splats; what a row leaves out is 0."""
    names = [*"xyz", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(45)), "opacity"]
    names += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    values = np.array([[row.get(name, 0.0) for name in names] for row in rows], "<f4")
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    head += [*(f"property float {name}" for name in names), "end_header", ""]
    path.write_bytes("\n".join(head).encode() + values.tobytes())
    return path


def test_ideal_lenses_show_what_the_field_shows_through_them() -> None:
    scene = toy_scene(4, width=96, height=80)
    bent = torch.tensor([0.06, -0.05, 0.001, -0.002]).expand(4, 4)
    cameras = replace(scene.cameras, distortion=bent, centre=scene.cameras.centre + torch.tensor([2.0, -1.5]))
    photos = tuple((render_view(ToyField(), cameras, i).colour * 255).round().to(torch.uint8) for i in range(4))
    ideal = through_ideal_lenses(replace(scene, cameras=cameras, images=photos))
    assert not ideal.cameras.distortion.any()
    assert torch.equal(ideal.cameras.centre, torch.tensor([[48.0, 40.0]]).expand(4, 2))
    zoom = ideal.cameras.focal / cameras.focal
    assert (zoom >= 1).all()
    assert (zoom < 1.15).all()
    for i in range(4):
        assert psnr(ideal.image(i), render_view(ToyField(), ideal.cameras, i).colour) > 32


def test_photos_of_ideal_lenses_stay_as_they_are() -> None:
    scene = toy_scene(4)
    same = through_ideal_lenses(replace(scene, masks=tuple(image[..., 0] > 90 for image in scene.images)))
    assert torch.equal(same.cameras.focal, scene.cameras.focal)
    assert all(torch.equal(a, b) for a, b in zip(same.images, scene.images, strict=True))
    assert same.masks is not None
    assert all(torch.equal(a, b[..., 0] > 90) for a, b in zip(same.masks, scene.images, strict=True))


def test_a_project_holds_the_training_photos_alone_and_reads_back(tmp_path: Path) -> None:
    scene = toy_scene()
    document = json.loads(write_project(scene, tmp_path, points=POINTS).read_text())
    assert len(document["frames"]) == len(scene.train) == len(list((tmp_path / "images").iterdir()))
    assert (tmp_path / document["ply_file_path"]).read_bytes().startswith(b"ply\n")
    back = read_scene(tmp_path, held_out_every=0)
    torch.testing.assert_close(back.cameras.camera_to_world, scene.cameras.camera_to_world[scene.train])
    assert torch.equal(back.images[0], scene.images[int(scene.train[0])])


def test_a_splat_is_drawn_where_its_centre_projects(tmp_path: Path) -> None:
    cameras = pinhole(
        look_at(torch.tensor([[0.0, -4.0, 1.0]]), torch.zeros(1, 3)), torch.tensor([50.0]), width=40, height=30
    )
    place = torch.tensor([[0.4, 0.1, -0.3]])
    red = {"f_dc_0": 0.5 / C0, "f_dc_1": -0.5 / C0, "f_dc_2": -0.5 / C0, "opacity": 4.0, "rot_0": 2.0}
    sizes = {f"scale_{i}": math.log(0.1) for i in range(3)}
    x, y, z = place[0].tolist()
    splats = read_splats(splat_ply(tmp_path / "one.ply", [{"x": x, "y": y, "z": z, **red, **sizes}]))
    picture = render_splats(splats, cameras, 0, background=(0.0, 0.0, 1.0))
    (u, v), depth = (found[0] for found in project(cameras, place))
    rows, columns = torch.meshgrid(torch.arange(30) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    weight = picture[..., 0] / picture[..., 0].sum()
    assert float((weight * columns).sum()) == pytest.approx(float(u), abs=0.05)
    assert float((weight * rows).sum()) == pytest.approx(float(v), abs=0.05)
    # Seen nearly along the axis, its standard deviation is focal * 0.1 / depth, widened.
    spread = float((weight * (columns - u) ** 2).sum())
    assert spread == pytest.approx((50 * 0.1 / float(depth)) ** 2 + 0.3, rel=0.12)
    assert picture[0, 0].tolist() == [0, 0, 1]


def test_the_nearer_splat_hides_the_other(tmp_path: Path) -> None:
    cameras = pinhole(
        look_at(torch.tensor([[0.0, -4.0, 0.0]]), torch.zeros(1, 3)), torch.tensor([50.0]), width=20, height=20
    )
    common = {"opacity": 12.0, "rot_0": 1.0, **{f"scale_{i}": math.log(0.3) for i in range(3)}}
    white = {f"f_dc_{i}": 0.5 / C0 for i in range(3)}
    black = {f"f_dc_{i}": -0.5 / C0 for i in range(3)}
    rows = [{"y": 1.0, **white, **common}, {"y": -1.0, **black, **common}]
    splats = read_splats(splat_ply(tmp_path / "two.ply", rows))
    assert render_splats(splats, cameras, 0, background=(0.0, 0.0, 0.0))[10, 10].max() < 0.01
    turned = render_splats(splats, cameras, 0, background=(0.0, 0.0, 0.0), keys=-splats.centres[:, 1])
    assert turned[10, 10].min() > 0.9


def test_a_broken_ply_is_named(tmp_path: Path) -> None:
    path = splat_ply(tmp_path / "cut.ply", [{"x": 1.0}])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(PeerError, match=r"cut\.ply"):
        read_splats(path)


def test_a_clock_says_how_many_steps_fit() -> None:
    clock = Clock(tuple(0.1 * (i + 1) for i in range(30)))
    assert clock.steps_within(1.05) == 10
    assert clock.steps_within(1e-6) == 1
    assert clock.steps_within(6.0) == pytest.approx(60, abs=1)
    slowing = Clock(tuple(0.1 * (i + 1) for i in range(20)) + tuple(2 + 0.5 * (i + 1) for i in range(10)))
    assert slowing.steps_within(12.0) == pytest.approx(40, abs=1)


PRETENDER = """#!{python}
import shutil, sys, time
steps = int(sys.argv[sys.argv.index("-n") + 1])
print("Using CPU", flush=True)
for step in range(1, min(steps, 400) + 1):
    time.sleep(0.01)
    print(f"Step {{step}}: 0.1 (1%)", flush=True)
shutil.copy({ply!r}, sys.argv[sys.argv.index("-o") + 1])
"""


def pretender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, text: str = PRETENDER) -> None:
    """A program that takes OpenSplat's arguments and needs a hundredth of a second a step."""
    ply = splat_ply(tmp_path / "made.ply", [{"y": 1.0, "opacity": 3.0, "rot_0": 1.0}])
    program = tmp_path / "opensplat"
    program.write_text(text.format(python=sys.executable, ply=str(ply)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("OPENSPLAT", str(program))


def test_opensplat_is_run_for_as_many_steps_as_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretender(tmp_path, monkeypatch)
    scene = toy_scene(4, width=16, height=12)
    run, clock = run_opensplat(scene, seconds=0.5, threads=1, points=POINTS)
    assert 1 <= run.steps < 55
    assert run.seconds == clock.ends[-1] > 0.009 * run.steps
    assert len(clock.ends) == run.steps
    assert [tuple(picture.shape) for picture in run.renders] == [(12, 16, 3)]
    assert f"-n {run.steps}" in run.options


def test_what_opensplat_last_said_is_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretender(tmp_path, monkeypatch, text="#!/bin/sh\necho out of gaussians\nexit 3\n")
    with pytest.raises(PeerError, match="status 3 after 0 steps: out of gaussians"):
        run_opensplat(toy_scene(4, width=16, height=12), seconds=1, threads=1, points=POINTS)


@pytest.mark.colmap
def test_scene_points_lie_where_the_photos_show_them() -> None:
    """A wall of random squares, photographed from five places."""
    generator = torch.Generator().manual_seed(0)
    wall = torch.rand(40, 40, 3, generator=generator).repeat_interleave(8, 0).repeat_interleave(8, 1)
    scene, side = toy_scene(6, width=200, height=160), 320
    images = []
    for i in range(6):
        v, u = torch.meshgrid(torch.arange(160) + 0.5, torch.arange(200) + 0.5, indexing="ij")
        pixels = torch.stack([u, v], -1)
        plane = (pixels - scene.cameras.centre[i]) / scene.cameras.focal[i]
        local = torch.cat([plane, torch.ones(160, 200, 1)], -1)
        pose = scene.cameras.camera_to_world[i]
        directions = local @ pose[:, :3].T
        t = (1.0 - pose[1, 3]) / directions[..., 1]
        hit = pose[:, 3] + t[..., None] * directions
        cell = ((hit[..., [0, 2]] / 8 + 0.5) * side).long().clamp(0, side - 1)
        images.append((wall[cell[..., 1], cell[..., 0]] * 255).to(torch.uint8))
    points = triangulated(replace(scene, images=tuple(images)), threads=1)
    assert len(points.positions) > 20
    assert (points.positions[:, 1] - 1.0).abs().median() < 0.03


def test_a_lens_that_bends_too_much_is_refused() -> None:
    scene = toy_scene(4)
    bent = replace(scene.cameras, centre=scene.cameras.centre + 30)
    with pytest.raises(PeerError, match="crop the photos"):
        through_ideal_lenses(replace(scene, cameras=bent))

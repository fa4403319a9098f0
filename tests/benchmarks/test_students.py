"""The benchmark of tricks: every row differs from the plain student in one thing, and its figures are a student's."""

from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.slabs import Conditions
from benchmarks.students import SETTINGS, TRICKS, distilled, ray_mlps, torch_ms
from crowdnerf_lab.devices.reference import Reference
from crowdnerf_lab.distillation_state import DistilSettings
from crowdnerf_lab.light_fields.planes import planes_through
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from tests.toy_field import ToyField, toy_scene


def toy_conditions(workspace: Path) -> Conditions:
    return Conditions(
        field=ToyField(), scene=toy_scene(), width=48, height=40, views=1, threads=1, seed=0, workspace=workspace
    )


def test_a_trick_changes_what_it_names() -> None:
    plain = asdict(SETTINGS)
    changed = [{key for key, value in asdict(settings).items() if value != plain[key]} for settings in TRICKS.values()]
    assert changed[0] == set()
    assert all(1 <= len(keys) <= 2 for keys in changed[1:])
    assert len({frozenset(keys) for keys in changed}) == len(changed)


def test_ray_mlps_differ_from_the_plain_one_and_from_each_other(tmp_path: Path) -> None:
    same = toy_conditions(tmp_path)
    scene = same.scene
    plain = RayMLP(planes_through(same.field, scene.cameras[scene.train], scene.bounds), "S", view_size=(48, 40))
    pictures = [student(scene.cameras[:1], 40, 48).detach() for student in (plain, *ray_mlps(same).values())]
    for i, first in enumerate(pictures):
        assert not any(torch.allclose(first, second) for second in pictures[:i])


def test_a_row_s_student_is_distilled_and_timed(tmp_path: Path) -> None:
    same = toy_conditions(tmp_path)
    scene = same.scene
    student = RayMLP(planes_through(same.field, scene.cameras[scene.train], scene.bounds), "XS", view_size=(48, 40))
    result = distilled(student, same, seconds=0.1, settings=DistilSettings(window=16, rays_per_step=64))
    assert result.history[-1].step > 0
    assert len(list(tmp_path.iterdir())) == 1
    threads = torch.get_num_threads()
    assert torch_ms(result.student, Reference(scene.cameras[:2], (), ()), width=48, height=40) > 0
    assert torch.get_num_threads() == threads

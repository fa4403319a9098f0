"""The table of light slabs: a row holds what a UE measures of the file that it receives."""

from pathlib import Path

import torch

from benchmarks.slabs import measured
from crowdnerf_lab.devices.reference import Reference
from crowdnerf_lab.distillation import Distillation, DistilSettings
from crowdnerf_lab.light_fields.light_slab import LightSlab, slab_through
from crowdnerf_lab.light_fields.surfaces import seen_surfaces
from crowdnerf_lab.training import FitRecord
from tests.toy_field import ToyField, toy_cameras

WIDTH, HEIGHT = 48, 40


def test_a_row_holds_what_the_coded_file_shows(tmp_path: Path) -> None:
    cameras = toy_cameras(2, width=WIDTH, height=HEIGHT)
    student = LightSlab([slab_through(seen_surfaces(ToyField(), cameras, rays=2048))], "XS").eval()
    with torch.no_grad():
        student.decoder[4].get_parameter("weight").mul_(30)  # pictures with contrast, as a trained student's are
        pictures = tuple(student(cameras, HEIGHT, WIDTH))
    distillation = Distillation(
        student=student,
        history=(FitRecord(7, 1.5, 0.1, None),),
        settings=DistilSettings(),
        seed=0,
        views=1,
        width=WIDTH,
        height=HEIGHT,
        render_seconds=0.0,
        checkpoint=None,
        interrupted=False,
    )
    dark = tuple(torch.zeros_like(picture) for picture in pictures)
    row = measured("light_slab XS", distillation, Reference(cameras, photos=dark, teacher=pictures), tmp_path)
    assert (row["steps"], row["seconds"], row["student"]) == (7, 1.5, "light_slab XS")
    assert row["psnr_teacher"] > 35  # eight bits a weight
    assert row["psnr"] < 15
    assert row["parameters"] == sum(weights.numel() for weights in student.parameters())
    assert row["bytes_coded"] < row["bytes_fp32"] / 3
    assert row["ms"] > 0

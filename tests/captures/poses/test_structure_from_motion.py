"""Structure from motion needs an extra: without it, or with an old one, the error says what to install."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.photos import read_photo
from crowdnerf_lab.captures.poses import structure_from_motion as sfm
from crowdnerf_lab.captures.poses.calibration import CalibrationError, calibrate
from crowdnerf_lab.captures.poses.structure_from_motion import MotionError, Shot, structure_from_motion

INSTALL = r'pip install "crowdnerf-lab\[colmap\]"'


def shots(count: int) -> list[Shot]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (count, 8, 8, 3), generator=generator, dtype=torch.uint8)
    return [Shot(phone="one", image=image, focal_px=10.0, centre_px=None) for image in images]


def test_without_pycolmap_the_install_line_is_given(tmp_path, monkeypatch):
    def absent(name: str):
        raise ImportError(name)

    monkeypatch.setattr(sfm, "import_module", absent)
    with pytest.raises(MotionError, match=INSTALL):
        structure_from_motion(shots(3), tmp_path, threads=1)
    with pytest.raises(CalibrationError, match=INSTALL):
        calibrate(concert(), poses="colmap", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_pycolmap_without_global_mapper_is_to_be_updated(tmp_path, monkeypatch):
    monkeypatch.setattr(sfm, "import_module", lambda name: SimpleNamespace(__version__="3.12.0"))
    with pytest.raises(MotionError, match=INSTALL + " --upgrade"):
        structure_from_motion(shots(3), tmp_path, threads=1)


@pytest.mark.colmap
def test_a_phone_with_many_photos_gets_its_lens_distortion(tmp_path):
    captures = concert()
    floor = [photo for photo in captures.photos if photo.file[6:10] in ("ue18", "ue20", "ue22", "ue28")]
    many = [Shot("shared", image=read_photo(captures.path_of(p.file)), focal_px=340.0, centre_px=None) for p in floor]
    motion = structure_from_motion(many, Path(tmp_path), threads=2, progress=False)
    assert len(motion.rows) >= 10
    assert motion.cameras.distortion[:, 0].unique().numel() == 1
    assert float(motion.cameras.distortion[0, 0]) != 0
    assert motion.cameras.distortion[:, 1:].abs().max() == 0

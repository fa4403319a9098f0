"""The study of simulated photos: clean twins and masks of the photo's size, and refusal for real photos."""

import pytest
import torch

from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.study import clean_twin, is_spoiled, people_in_front, truth_of


def test_the_mask_covers_as_much_as_the_truth_says_and_hides_what_differs():
    captures = concert()
    photo = max(captures.photos, key=lambda photo: truth_of(photo).occluded)
    mask = people_in_front(captures, photo)
    assert mask.shape == (photo.height, photo.width)
    assert float(mask.float().mean()) == pytest.approx(truth_of(photo).occluded, abs=0.01)
    small = people_in_front(captures, photo, downscale=4)
    assert small.shape == (photo.height // 4, photo.width // 4)
    assert float(small.float().mean()) == pytest.approx(truth_of(photo).occluded, abs=0.03)
    assert clean_twin(captures, photo, downscale=2).shape == (photo.height // 2, photo.width // 2, 3)


def test_spoiled_photos_look_the_right_way():
    photos = concert().photos
    spoiled = [photo for photo in photos if is_spoiled(photo)]
    assert {truth_of(photo).spoiled_by for photo in spoiled} == {None, "blur", "dark", "over"}
    assert all(truth_of(photo).occluded > 0.05 for photo in spoiled if truth_of(photo).spoiled_by is None)
    assert len(spoiled) > 70


def test_a_real_photo_has_no_truth():
    captures = concert()
    real = captures.photos[0].model_copy(update={"truth": None})
    with pytest.raises(CaptureError, match="only simulated photos"):
        truth_of(real)
    truth = truth_of(captures.photos[0]).model_copy(update={"clean_file": None, "occluder_mask_file": None})
    bare = captures.photos[0].model_copy(update={"truth": truth})
    with pytest.raises(CaptureError, match="no clean twin"):
        clean_twin(captures, bare)
    with pytest.raises(CaptureError, match="no occluder mask"):
        people_in_front(captures, bare)
    assert isinstance(clean_twin(captures, captures.photos[0]), torch.Tensor)

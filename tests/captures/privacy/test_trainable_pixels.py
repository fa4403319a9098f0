"""What was filled is not trained on."""

import torch

from crowdnerf_lab.captures.bundle import Photo
from crowdnerf_lab.captures.privacy.anonymisation import anonymised
from crowdnerf_lab.captures.privacy.faces import Face
from crowdnerf_lab.captures.privacy.trainable_pixels import trainable_pixels

SIZE = {"width": 40, "height": 30, "time_s": 0.0}


def test_photos_in_which_nothing_was_filled_have_no_masks():
    images = [torch.zeros(30, 40, 3, dtype=torch.uint8)] * 2
    assert trainable_pixels([Photo(file="a.jpg", **SIZE), Photo(file="b.jpg", faces=0, **SIZE)], images) is None


def test_masks_leave_out_exactly_what_anonymising_may_change():
    noise = torch.randint(0, 256, (30, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    box = (18.0, 10.0, 26.0, 20.0)
    hidden = anonymised(noise, [Face(*box, score=0.9)])
    masks = trainable_pixels(
        [Photo(file="a.jpg", faces=1, filled=(box,), **SIZE), Photo(file="b.jpg", **SIZE)], [hidden, noise]
    )
    assert masks is not None
    kept, whole = masks
    assert bool(whole.all())
    assert torch.equal(hidden[kept], noise[kept])
    assert not bool(kept[10:20, 18:26].any())
    assert 0.5 < float(kept.float().mean()) < 0.95

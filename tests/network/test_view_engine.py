"""The view engine: the field's picture over the air, honest about bytes and time, and refusing nonsense."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from crowdnerf_lab.devices.measure import as_colour
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.network.views.view_engine import (
    MAX_PIXELS,
    Format,
    ViewError,
    ViewRequest,
    decode_view,
    render_and_encode,
)
from crowdnerf_lab.rendering import render_view
from tests.toy_field import ToyField, toy_cameras

CAMERAS = toy_cameras(3)
REQUEST = ViewRequest(CAMERAS.camera_to_world[1], focal=(43.2, 43.2), centre=(24.0, 20.0), width=48, height=40)


@pytest.mark.row("S8", "S70", "S71")
@pytest.mark.parametrize(
    ("format", "media_type"),
    [("webp", "image/webp"), ("jpeg", "image/jpeg"), ("avif", "image/avif"), ("png", "image/png")],
)
def test_a_requested_view_arrives(format: Format, media_type: str) -> None:
    encoded = render_and_encode(ToyField(), REQUEST, format=format, quality=95)
    assert encoded.media_type == media_type
    assert encoded.render_ms > 0
    assert encoded.encode_ms > 0
    truth = render_view(ToyField(), CAMERAS, 1).colour
    assert psnr(as_colour(decode_view(encoded)), truth) > 25
    assert len(encoded.content) < truth.numel() / 2


def test_quality_costs_bytes_and_gains_decibels() -> None:
    truth = render_view(ToyField(), CAMERAS, 1).colour
    coarse, fine = (render_and_encode(ToyField(), REQUEST, quality=quality) for quality in (5, 95))
    assert len(coarse.content) < len(fine.content)
    assert psnr(as_colour(decode_view(coarse)), truth) < psnr(as_colour(decode_view(fine)), truth)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"camera_to_world": torch.full((3, 4), math.nan)}, "pose is not finite"),
        ({"camera_to_world": torch.ones(3, 4)}, "rotation is none"),
        ({"width": 0}, "a view of 0 x 40 pixels"),
        ({"height": -1}, "a view of 48 x -1 pixels"),
        ({"width": MAX_PIXELS, "height": 2}, "ask for 1 to"),
        ({"focal": (0.0, 43.2)}, "focal above 0"),
        ({"centre": (math.inf, 20.0)}, "give finite pixels"),
    ],
)
def test_requests_that_nobody_can_render_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ViewError, match=says):
        render_and_encode(ToyField(), replace(REQUEST, **changes))


def test_an_unknown_quality_is_refused() -> None:
    with pytest.raises(ViewError, match="give webp or jpeg or avif or png and 1 to 100"):
        render_and_encode(ToyField(), REQUEST, quality=0)


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"no picture" + c])
def test_a_damaged_view_is_refused(damage) -> None:
    encoded = render_and_encode(ToyField(), REQUEST, format="jpeg")
    with pytest.raises(ViewError, match=r"is damaged .*; ask for it again"):
        decode_view(replace(encoded, content=damage(encoded.content)))


def test_a_view_of_another_size_is_refused() -> None:
    encoded = replace(render_and_encode(ToyField(), REQUEST), width=64)
    with pytest.raises(ViewError, match="the view is 48 x 40, not 64 x 40"):
        decode_view(encoded)


def test_decoded_views_are_bytes() -> None:
    assert decode_view(render_and_encode(ToyField(), REQUEST)).dtype == np.uint8

"""Appearance: exposure, white balance and vignette of phones."""

import pytest
import torch

from crowdnerf_lab.fields.appearance import (
    Appearance,
    AppearanceSettings,
    centre_distance2,
    exposed,
    linear_to_srgb,
    srgb_to_linear,
)


def test_srgb_and_linear_light_are_inverse() -> None:
    values = torch.linspace(0, 1.5, 301)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-5, rtol=1e-5)
    assert srgb_to_linear(torch.tensor(0.5)).item() == pytest.approx(0.2140, abs=1e-4)


def test_untouched_appearance_is_neutral() -> None:
    appearance = Appearance(torch.tensor([0, 0, 1]), 2)
    colour = torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(appearance(colour, torch.arange(3), torch.zeros(3)), colour, atol=1e-6, rtol=1e-5)
    assert appearance.pull(AppearanceSettings()).item() == 0


def test_gain_shot_and_vignette_act_on_their_own_photos() -> None:
    appearance = Appearance(torch.tensor([0, 0, 1]), 2)
    with torch.no_grad():
        appearance.log_gain[0] = 0.4
        appearance.log_gain[1] = -0.4
        appearance.log_shot[1] = -0.4
        appearance.vignette[1] = 0.5
    grey = torch.full((3, 3), 0.5)
    centre = appearance(grey, torch.arange(3), torch.zeros(3)).detach()
    corner = appearance(grey, torch.arange(3), torch.ones(3)).detach()
    shoulder = appearance.shoulder.detach()
    torch.testing.assert_close(centre[0], exposed(grey[0], torch.full((3,), 0.4), shoulder))
    torch.testing.assert_close(centre[1], grey[1])
    torch.testing.assert_close(corner[2], exposed(grey[2], torch.full((3,), -0.9), shoulder))
    torch.testing.assert_close(corner[:2], centre[:2])


def test_a_common_gain_is_no_appearance() -> None:
    """Making every phone brighter by the same factor is the scene's business: one gauge."""
    appearance = Appearance(torch.tensor([0, 1]), 2)
    with torch.no_grad():
        appearance.log_gain += 0.7
    grey = torch.full((2, 3), 0.3)
    torch.testing.assert_close(appearance(grey, torch.arange(2), torch.zeros(2)), grey)


@pytest.mark.parametrize("shoulder", [0.0, 0.5, 0.8])
def test_exposures_form_a_group(shoulder: float) -> None:
    """One gain after the other is their product; the inverse gain undoes; no gain does nothing."""
    colour = 0.9 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    some, more = torch.tensor([0.3, -0.2, 0.1]), torch.tensor([-0.7, 0.4, 0.2])
    twice = exposed(exposed(colour, some, shoulder), more, shoulder)
    torch.testing.assert_close(twice, exposed(colour, some + more, shoulder), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(exposed(twice, -(some + more), shoulder), colour, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(exposed(colour, torch.zeros(3), shoulder), colour, atol=1e-6, rtol=1e-5)


def test_the_tone_curve_is_reinhard_s() -> None:
    light, gain, shoulder = torch.tensor([0.05, 0.4, 2.0]), 3.0, 0.8
    shown = light / (1 + shoulder * light)
    expected = gain * light / (1 + shoulder * gain * light)
    seen = exposed(linear_to_srgb(shown), torch.full((3,), gain).log(), shoulder)
    torch.testing.assert_close(srgb_to_linear(seen), expected, atol=1e-5, rtol=1e-4)
    linear = exposed(linear_to_srgb(light), torch.full((3,), gain).log(), 0.0)
    torch.testing.assert_close(srgb_to_linear(linear), gain * light, atol=1e-5, rtol=1e-4)


def test_a_whole_picture_as_a_phone_shows_it() -> None:
    appearance = Appearance(torch.tensor([0, 1]), 2)
    with torch.no_grad():
        appearance.log_gain[1] = -1.0
        appearance.vignette[1] = 0.5
    picture = torch.full((6, 8, 3), 0.6)
    seen = appearance.as_taken(picture, 1)
    assert seen.shape == picture.shape
    assert float(seen[0, 0, 0]) < float(seen[2, 3, 0]) < 0.6
    distance2 = centre_distance2(6, 8)
    photos = torch.ones(48, dtype=torch.int64)
    by_pixel = appearance(picture.reshape(-1, 3), photos, distance2.reshape(-1)).detach()
    torch.testing.assert_close(seen.reshape(-1, 3), by_pixel)
    assert float(distance2.max()) < 1 < float(distance2[0, 0]) + 0.4


def test_the_tone_curve_is_learned_from_phones_that_differ() -> None:
    light = torch.linspace(0.02, 0.9, 40)[:, None].expand(40, 3)
    neutral = linear_to_srgb(light)
    bright = exposed(neutral, torch.full((3,), 1.0), 0.8)
    appearance = Appearance(torch.tensor([0, 1]), 2)
    with torch.no_grad():
        appearance.log_gain[0], appearance.log_gain[1] = -1.0, 1.0
    optimizer = torch.optim.Adam(appearance.parameters(), lr=0.05)
    photos = torch.tensor([0, 1]).repeat_interleave(40)
    for _ in range(150):
        optimizer.zero_grad()
        seen = appearance(torch.cat([neutral, neutral]), photos, torch.zeros(80))
        ((seen - torch.cat([exposed(neutral, -torch.ones(3), 0.8), bright])) ** 2).mean().backward()
        optimizer.step()
    assert float(appearance.shoulder.detach()) == pytest.approx(0.8, abs=0.05)

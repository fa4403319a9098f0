"""Appearance: exposure, white balance and vignette of phones."""

import pytest
import torch

from crowdnerf_lab.fields.appearance import Appearance, AppearanceSettings, linear_to_srgb, srgb_to_linear


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
    light = srgb_to_linear(grey)
    torch.testing.assert_close(srgb_to_linear(centre[0]), light[0] * torch.exp(torch.tensor(0.4)))
    torch.testing.assert_close(centre[1], grey[1])
    torch.testing.assert_close(srgb_to_linear(corner[2]), light[2] * torch.exp(torch.tensor(-0.9)))
    torch.testing.assert_close(corner[:2], centre[:2])


def test_a_common_gain_is_no_appearance() -> None:
    """Making every phone brighter by the same factor is the scene's business: one gauge."""
    appearance = Appearance(torch.tensor([0, 1]), 2)
    with torch.no_grad():
        appearance.log_gain += 0.7
    grey = torch.full((2, 3), 0.3)
    torch.testing.assert_close(appearance(grey, torch.arange(2), torch.zeros(2)), grey)

"""What differs between phones and not in the scene: exposure, white balance, vignette, and the tone curve they share.

A photo's colour is the neutral colour of the field, taken to linear light, multiplied by the gains of its capture
(one UE, one phone) and of its shot, dimmed towards the corners, and taken back to sRGB (NeRF in the Wild,
Martin-Brualla et al. 2021, with a physical model in place of an embedding, as in Urban Radiance Fields, Rematas et
al. 2022).

Phones press highlights together before they write a photo, after the exposure was set. With Reinhard's curve
(Reinhard et al. 2002), L = x / (1 + h x) of the light x on the sensor, a gain g of the light makes of L

    L' = g L / (1 + (g - 1) h L),

whatever the light was. Gains of one h form a group: L' with 1 / g gives L back. h = 0 is a linear phone.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crowdnerf_lab.cameras import pixel_grid


def srgb_to_linear(colour: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """sRGB values to linear light (IEC 61966-2-1); values above 1 continue the curve."""
    return torch.where(colour <= 0.04045, colour / 12.92, ((colour.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Linear light to sRGB values; inverse of `srgb_to_linear`."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def exposed(
    colour: Float[Tensor, "*n 3"], log_gain: Float[Tensor, "*#n 3"], shoulder: Float[Tensor, ""] | float
) -> Float[Tensor, "*n 3"]:
    """sRGB colours as a phone with gains exp(log_gain) shows what another shows as `colour`; see the module's L'.

    shoulder: h of the tone curve, in [0, 1). Undone by the gains -log_gain, as far as nothing is cut off at 1.
    """
    light, gain = srgb_to_linear(colour), torch.exp(log_gain)
    # Darker by much, a colour above 1 / h has no light that would explain it.
    return linear_to_srgb(gain * light / (1 + (gain - 1) * shoulder * light).clamp(min=1e-2))


def centre_distance2(height: int, width: int) -> Float[Tensor, "h w"]:
    """Squared distance of each pixel from the image's centre over the squared half diagonal, in [0, 1]."""
    half = torch.tensor([width / 2, height / 2])
    return ((pixel_grid(width, height) - half) ** 2).sum(-1) / (half**2).sum()


@dataclass(frozen=True)
class AppearanceSettings:
    """Strength of the pulls (weights of squared parameters in the loss) that keep appearance apart from the scene.

    gain: pull of a capture's gains towards the crowd's; shot: of one photo's exposure towards its capture's;
    vignette: of the corner fall-off towards none.
    """

    gain: float = 1e-3
    shot: float = 1e-2
    vignette: float = 1e-3


class Appearance(nn.Module):
    """Learned appearance of captures and photos.

    log_gain [captures, 3]: white balance and exposure in natural-log linear light; log_shot [photos]: a shot's own
    exposure; vignette [captures]: light lost in the corners is 1 - exp(-vignette); shoulder_logit: log odds of the
    tone curve's h, one for the crowd.
    """

    def __init__(self, capture_of_photo: Int[Tensor, "photos"], captures: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(captures, 3))
        self.log_shot = nn.Parameter(torch.zeros(len(capture_of_photo)))
        self.vignette = nn.Parameter(torch.zeros(captures))
        self.shoulder_logit = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("capture_of_photo", capture_of_photo.clone())
        self.capture_of_photo: Tensor

    def forward(
        self, colour: Float[Tensor, "n 3"], photo: Int[Tensor, "n"], radius2: Float[Tensor, "n"]
    ) -> Float[Tensor, "n 3"]:
        """Neutral sRGB colours as photo `photo` shows them; radius2 is the squared distance from the image's centre
        over the squared half diagonal, in [0, 1]. Values above 1 would clip in the photo."""
        capture = self.capture_of_photo[photo]
        # One gauge: the crowd's mean gain is 1, so "neutral" is the average phone.
        gain = self.log_gain[capture] - self.log_gain.mean(0)
        shot = self.log_shot[photo] - self.vignette[capture] * radius2
        return exposed(colour, gain + shot[:, None], self.shoulder)

    @property
    def shoulder(self) -> Float[Tensor, ""]:
        """h of the tone curve, in (0, 1)."""
        return torch.sigmoid(self.shoulder_logit)

    @torch.no_grad()
    def as_taken(self, colour: Float[Tensor, "h w 3"], photo: int) -> Float[Tensor, "h w 3"]:
        """A whole neutral picture as photo `photo` shows it, cut off at white like it."""
        height, width = colour.shape[:2]
        photos = torch.full((height * width,), photo)
        seen = self(colour.reshape(-1, 3), photos, centre_distance2(height, width).reshape(-1))
        return seen.clamp(0, 1).reshape(colour.shape)

    def pull(self, settings: AppearanceSettings) -> Float[Tensor, ""]:
        """The regulariser to add to a loss."""
        return (
            settings.gain * (self.log_gain**2).mean()
            + settings.shot * (self.log_shot**2).mean()
            + settings.vignette * (self.vignette**2).mean()
        )

"""Measured on this machine: how long a frame takes with pinned threads, and what a picture loses against its truth.

Measured is what a UE runs: the model as `network.ue` loads it, pose in to picture out.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.catalogue.card import Latency, MeasuredQuality
from crowdnerf_lab.catalogue.remeasurement import Timing, machine, timed
from crowdnerf_lab.metrics import psnr, quality
from crowdnerf_lab.network.ue import LocalModel, Picture

MOST_DB = 99.0
"""PSNR written down for pictures without any difference."""


def measure_latency(model: LocalModel, cameras: Cameras, *, frames: int = 20, rounds: int = 1) -> Latency:
    """Median and 95th percentile of the time of a frame, after a warm-up, over the cameras in turn.

    Of several rounds the least disturbed counts. The threads are those the model was loaded with.
    """
    size = {"width": model.width, "height": model.height}
    views = [intrinsics(cameras, i, **size) for i in range(len(cameras))]
    return latency_of(model, timed(lambda i: model.render(*views[i % len(views)]), frames=frames, rounds=rounds))


def latency_of(model: LocalModel, timing: Timing) -> Latency:
    """What a card says of a model that was timed on this machine."""
    return Latency(
        median_ms=timing.median_ms,
        p95_ms=timing.p95_ms,
        processor_ms=timing.processor_ms or None,
        frames=timing.frames,
        threads=model.threads,
        runtime=model.runtime,
        machine=machine(),
    )


def measure_quality(
    model: LocalModel,
    cameras: Cameras,
    *,
    photos: Sequence[Float[Tensor, "_ _ 3"]],
    teacher: Sequence[Float[Tensor, "_ _ 3"]],
    psnr_before: float | None = None,
) -> MeasuredQuality:
    """The model's pictures, at the photos' size, against the photos and the teacher's; PSNR pooled over all pixels.

    psnr_before: what the same model had against the photos before quantization.
    """
    measured = quality_of_pictures(pictures_of(model, cameras) if photos else (), photos=photos, teacher=teacher)
    return measured.model_copy(update={"psnr_before": psnr_before}) if photos else measured


def quality_of_pictures(
    pictures: Sequence[Picture],
    *,
    photos: Sequence[Float[Tensor, "_ _ 3"]],
    teacher: Sequence[Float[Tensor, "_ _ 3"]],
) -> MeasuredQuality:
    """Pictures against the photos and the teacher's pictures of the same views; nothing is claimed without photos."""
    if not photos:
        return MeasuredQuality(views=0, psnr=None, psnr_affine=None, ssim=None, flip=None, psnr_teacher=None)
    colours = [as_colour(picture) for picture in pictures]
    against = quality(colours, list(photos))
    return MeasuredQuality(
        views=len(photos),
        psnr=min(against.psnr, MOST_DB),
        psnr_affine=min(against.psnr_affine, MOST_DB),
        ssim=against.ssim,
        flip=against.flip,
        psnr_teacher=min(pooled_psnr(colours, teacher), MOST_DB),
    )


def pooled_psnr(pictures: Sequence[Float[Tensor, "_ _ 3"]], truths: Sequence[Float[Tensor, "_ _ 3"]]) -> float:
    """PSNR, dB, over all pixels of several pictures at once."""
    return psnr(*(torch.cat([picture.reshape(-1, 3) for picture in side]) for side in (pictures, truths)))


def pictures_of(model: LocalModel, cameras: Cameras) -> list[Picture]:
    """What the model shows to each camera, at the camera's size."""
    pictures = []
    for i in range(len(cameras)):
        width, height = int(cameras.width[i]), int(cameras.height[i])
        pictures.append(model.render(*intrinsics(cameras, i, width=width, height=height), width=width, height=height))
    return pictures


def intrinsics(
    cameras: Cameras, index: int, *, width: int, height: int
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Pose, focal length and principal point of one camera for an image of another size, as a UE is asked."""
    sized = cameras[index : index + 1].resized(width, height)
    focal, centre = sized.focal[0].tolist(), sized.centre[0].tolist()
    return sized.camera_to_world[0].numpy(), (focal[0], focal[1]), (centre[0], centre[1])


def as_colour(picture: Picture) -> Float[Tensor, "h w 3"]:
    """Bytes to sRGB in [0, 1]."""
    return torch.from_numpy(np.asarray(picture, np.float32) / 255)


def as_bytes(colour: Float[Tensor, "h w 3"]) -> Picture:
    """sRGB in [0, 1] to bytes, rounded as a UE rounds."""
    return (colour.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()

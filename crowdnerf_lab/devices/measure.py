"""Measured on this machine: how long a frame takes with pinned threads, and what a picture loses against its truth.

Measured is what a UE runs: the model as `network.ue` loads it, pose in to picture out.
"""

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.catalogue.card import Latency, MeasuredQuality
from crowdnerf_lab.metrics import psnr, quality
from crowdnerf_lab.network.ue import LocalModel, Picture

WARM_UP_FRAMES = 3
MOST_DB = 99.0
"""PSNR written down for pictures without any difference."""


def machine() -> str:
    """The processor this process runs on, with the number of its cores, as a card names it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}"


def measure_latency(model: LocalModel, cameras: Cameras, *, frames: int = 20) -> Latency:
    """Median and 95th percentile of the time of a frame, after WARM_UP_FRAMES, over the cameras in turn.

    The threads are those the model was loaded with.
    """
    times = []
    for i in range(WARM_UP_FRAMES + frames):
        pose, focal, centre = intrinsics(cameras, i % len(cameras), width=model.width, height=model.height)
        started = time.perf_counter()
        model.render(pose, focal, centre)
        times.append(1e3 * (time.perf_counter() - started))
    measured = times[WARM_UP_FRAMES:]
    return Latency(
        median_ms=float(np.median(measured)),
        p95_ms=float(np.percentile(measured, 95)),
        frames=frames,
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
    if not photos:
        return MeasuredQuality(
            views=0, psnr=None, psnr_affine=None, ssim=None, flip=None, psnr_teacher=None, psnr_before=None
        )
    pictures = [as_colour(picture) for picture in pictures_of(model, cameras)]
    against = quality(pictures, list(photos))
    return MeasuredQuality(
        views=len(photos),
        psnr=min(against.psnr, MOST_DB),
        psnr_affine=min(against.psnr_affine, MOST_DB),
        ssim=against.ssim,
        flip=against.flip,
        psnr_teacher=min(pooled_psnr(pictures, teacher), MOST_DB),
        psnr_before=psnr_before,
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

"""Run in nerfstudio's own environment: python nerfacto_worker.py PROJECT SECONDS THREADS SEED. Needs nothing of ours.

Nerfstudio's nerfacto in its torch implementation, with its default rates and losses, appearance embeddings and proposal
sampling; poses are taken as given. Writes PROJECT/renders.npz and PROJECT/report.json.
"""

import json
import re
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

RAYS = 1024
"""Rays a step: nerfacto's 4096 are made for GPUs and give less in the same time on a CPU."""
MOST_OPERATORS = 20
RATE, RATE_END, RATE_STEPS = 1e-2, 1e-4, 200_000


def main(project: Path, seconds: float, threads: int, seed: int) -> None:
    torch = import_module("torch")
    _declare_missing_operators(torch)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    document = json.loads((project / "transforms.json").read_text())
    held_out = json.loads((project / "held_out.json").read_text())
    train, judged = _cameras(torch, document["frames"], held_out["frames"])
    images = _images(project, document["frames"])
    model = _model(len(images))
    groups = model.get_param_groups()
    optimizers = {name: torch.optim.Adam(groups[name], lr=RATE, eps=1e-15) for name in groups if groups[name]}
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, _rate) for optimizer in optimizers.values()]
    callbacks = _callbacks(model, optimizers)
    model.train()
    generator = np.random.default_rng(seed)
    spent, steps = 0.0, 0
    while spent < seconds:
        started = time.perf_counter()
        _step(torch, model, train, images, optimizers, callbacks, generator, steps)
        for schedule in schedules:
            schedule.step()
        steps += 1
        spent += time.perf_counter() - started
    model.eval()
    renders = {}
    for index in range(len(held_out["frames"])):
        with torch.no_grad():
            bundle = judged.generate_rays(camera_indices=index, keep_shape=True)
            renders[f"{index:05d}"] = model.get_outputs_for_camera_ray_bundle(bundle)["rgb"].numpy()
    np.savez(project / "renders.npz", **renders)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (project / "report.json").write_text(json.dumps({"seconds": spent, "steps": steps, "peak_mb": round(peak)}))


def _declare_missing_operators(torch: Any) -> None:
    """torchvision's wheel for another build of torch stops at operators that are not there; nobody here calls them."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    globals()["_library"] = library  # what is declared lasts as long as this
    for _ in range(MOST_OPERATORS):
        try:
            import_module("torchvision")
            return
        except RuntimeError as error:
            missing = re.search(r"torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            library.define(f"{missing[1]}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]


def _cameras(torch: Any, train: list[dict], judged: list[dict]) -> tuple[Any, Any]:
    """Cameras moved to their mean and scaled into the unit cube, as nerfstudio does by default."""
    cameras = import_module("nerfstudio.cameras.cameras")
    centre = np.mean([np.array(frame["transform_matrix"])[:3, 3] for frame in train], axis=0)
    reach = max(np.abs(np.array(frame["transform_matrix"])[:3, 3] - centre).max() for frame in train)

    def of(frames: list[dict]) -> Any:
        poses = np.array([frame["transform_matrix"] for frame in frames])[:, :3]
        poses[..., 3] = (poses[..., 3] - centre) / reach
        lens = {
            ours: torch.tensor([[frame[theirs]] for frame in frames], dtype=kind)
            for ours, theirs, kind in (
                ("fx", "fl_x", torch.float32),
                ("fy", "fl_y", torch.float32),
                ("cx", "cx", torch.float32),
                ("cy", "cy", torch.float32),
                ("width", "w", torch.int64),
                ("height", "h", torch.int64),
            )
        }
        poses = torch.tensor(poses, dtype=torch.float32)
        return cameras.Cameras(camera_to_worlds=poses, camera_type=cameras.CameraType.PERSPECTIVE, **lens)

    return of(train), of(judged)


def _images(project: Path, frames: list[dict]) -> list[np.ndarray]:
    pillow = import_module("PIL.Image")
    return [np.asarray(pillow.open(project / frame["file_path"]).convert("RGB")) for frame in frames]


def _model(photos: int) -> Any:
    nerfacto: Any = import_module("nerfstudio.models.nerfacto")
    metrics: Any = import_module("torchmetrics.image.lpip")
    # Its own metric would download weights; ours are taken afterwards.
    metrics.LearnedPerceptualImagePatchSimilarity = lambda **_: import_module("torch").nn.Identity()
    optimizer = import_module("nerfstudio.cameras.camera_optimizers").CameraOptimizerConfig(mode="off")
    box = import_module("nerfstudio.data.scene_box").SceneBox(
        aabb=import_module("torch").tensor([[-1.0] * 3, [1.0] * 3])
    )
    config = nerfacto.NerfactoModelConfig(
        implementation="torch", camera_optimizer=optimizer, eval_num_rays_per_chunk=1 << 12
    )
    return config.setup(scene_box=box, num_train_data=photos)


def _callbacks(model: Any, optimizers: dict) -> list[Any]:
    engine = import_module("nerfstudio.engine.callbacks")
    attributes = engine.TrainingCallbackAttributes(optimizers=optimizers, grad_scaler=None, pipeline=None, trainer=None)
    return model.get_training_callbacks(attributes)


def _step(
    torch: Any,
    model: Any,
    cameras: Any,
    images: list[np.ndarray],
    optimizers: dict,
    callbacks: list[Any],
    generator: np.random.Generator,
    step: int,
) -> None:
    location = import_module("nerfstudio.engine.callbacks").TrainingCallbackLocation
    for callback in callbacks:
        callback.run_callback_at_location(step, location=location.BEFORE_TRAIN_ITERATION)
    photo = generator.integers(0, len(images), RAYS)
    sizes = np.array([image.shape[:2] for image in images])[photo]
    pixel = (generator.random((RAYS, 2)) * sizes).astype(np.int64)
    colour = np.stack([images[i][v, u] for i, (v, u) in zip(photo, pixel, strict=True)]).astype(np.float32) / 255
    coordinates = torch.tensor(pixel + 0.5, dtype=torch.float32)
    bundle = cameras.generate_rays(camera_indices=torch.tensor(photo)[:, None], coords=coordinates)
    batch = {"image": torch.tensor(colour)}
    outputs = model(bundle)
    losses = model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch))
    loss = torch.stack(list(losses.values())).sum()
    for optimizer in optimizers.values():
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers.values():
        optimizer.step()
    for callback in callbacks:
        callback.run_callback_at_location(step, location=location.AFTER_TRAIN_ITERATION)


def _rate(step: int) -> float:
    return (RATE_END / RATE) ** min(step / RATE_STEPS, 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

"""crowdnerf_lab: from a crowd's phones to a view on any device.

    import crowdnerf_lab as cn

    captures, report = cn.screen(cn.concert())
    scene, poses = cn.calibrate(captures, poses="truth")
    fit = cn.fit(scene, seconds=60)
    view = cn.render_view(fit.model, scene.cameras, index=0)

The names below are loaded when they are first used (PEP 562), so that importing the package costs nothing and a
UE that only shows views never loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crowdnerf_lab import figures
    from crowdnerf_lab.cameras import Cameras, look_at, pinhole
    from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Photo, concert, read_captures, write_captures
    from crowdnerf_lab.captures.calibration import CalibrationReport, calibrate
    from crowdnerf_lab.captures.posed_formats import read_transforms
    from crowdnerf_lab.captures.scenes import read_scene
    from crowdnerf_lab.captures.screening import ScreeningReport, screen
    from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact, write_artefact
    from crowdnerf_lab.catalogue.card import ModelCard
    from crowdnerf_lab.catalogue.select import Capability, Selection, Target, select
    from crowdnerf_lab.devices.fitting import fit_to
    from crowdnerf_lab.devices.measure import Latency, measure_latency
    from crowdnerf_lab.devices.profile import DeviceProfile, device_profiles, read_profile
    from crowdnerf_lab.distillation import Distillation, distil
    from crowdnerf_lab.fields.baked import BakedField, bake
    from crowdnerf_lab.fields.field import RadianceField
    from crowdnerf_lab.fields.sh_grid import SHGrid, load_field, save_field
    from crowdnerf_lab.light_fields.light_field import LightField
    from crowdnerf_lab.light_fields.ray_mlp import RayMLP
    from crowdnerf_lab.metrics import Quality, psnr, quality
    from crowdnerf_lab.network.ue import LocalModel, load_artefact
    from crowdnerf_lab.network.view_engine import EncodedView, ViewRequest, decode_view, render_and_encode
    from crowdnerf_lab.presets import Preset, preset
    from crowdnerf_lab.rays import Rays
    from crowdnerf_lab.rendering import Rendered, render_view
    from crowdnerf_lab.scene import Bounds, PosedScene
    from crowdnerf_lab.training import Fit, fit
    from crowdnerf_lab.workbench import Workbench, open_workbench

__all__ = [
    "Artefact",
    "BakedField",
    "Bounds",
    "CalibrationReport",
    "Cameras",
    "Capability",
    "Capture",
    "CaptureSet",
    "DeviceProfile",
    "Distillation",
    "EncodedView",
    "Fit",
    "Latency",
    "LightField",
    "LocalModel",
    "ModelCard",
    "Photo",
    "PosedScene",
    "Preset",
    "Quality",
    "RadianceField",
    "RayMLP",
    "Rays",
    "Rendered",
    "SHGrid",
    "ScreeningReport",
    "Selection",
    "Target",
    "ViewRequest",
    "Workbench",
    "bake",
    "calibrate",
    "concert",
    "decode_view",
    "device_profiles",
    "distil",
    "figures",
    "fit",
    "fit_to",
    "load_artefact",
    "load_field",
    "look_at",
    "measure_latency",
    "open_artefact",
    "open_workbench",
    "pinhole",
    "preset",
    "psnr",
    "quality",
    "read_captures",
    "read_profile",
    "read_scene",
    "read_transforms",
    "render_and_encode",
    "render_view",
    "save_field",
    "screen",
    "select",
    "write_artefact",
    "write_captures",
]

_MODULES = ("figures",)
_NAMES_OF = {
    "cameras": ("Cameras", "look_at", "pinhole"),
    "captures.bundle": ("Capture", "CaptureSet", "Photo", "concert", "read_captures", "write_captures"),
    "captures.calibration": ("CalibrationReport", "calibrate"),
    "captures.posed_formats": ("read_transforms",),
    "captures.scenes": ("read_scene",),
    "captures.screening": ("ScreeningReport", "screen"),
    "catalogue.artefact": ("Artefact", "open_artefact", "write_artefact"),
    "catalogue.card": ("ModelCard",),
    "catalogue.select": ("Capability", "Selection", "Target", "select"),
    "devices.fitting": ("fit_to",),
    "devices.measure": ("Latency", "measure_latency"),
    "devices.profile": ("DeviceProfile", "device_profiles", "read_profile"),
    "distillation": ("Distillation", "distil"),
    "fields.baked": ("BakedField", "bake"),
    "fields.field": ("RadianceField",),
    "fields.sh_grid": ("SHGrid", "load_field", "save_field"),
    "light_fields.light_field": ("LightField",),
    "light_fields.ray_mlp": ("RayMLP",),
    "metrics": ("Quality", "psnr", "quality"),
    "network.ue": ("LocalModel", "load_artefact"),
    "network.view_engine": ("EncodedView", "ViewRequest", "decode_view", "render_and_encode"),
    "presets": ("Preset", "preset"),
    "rays": ("Rays",),
    "rendering": ("Rendered", "render_view"),
    "scene": ("Bounds", "PosedScene"),
    "training": ("Fit", "fit"),
    "workbench": ("Workbench", "open_workbench"),
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

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
    from crowdnerf_lab import figures, widgets
    from crowdnerf_lab.cameras import Cameras, look_at, pinhole
    from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Photo, concert, write_captures
    from crowdnerf_lab.captures.clocks.synchronisation import synchronise
    from crowdnerf_lab.captures.coverage import Coverage, coverage, requests
    from crowdnerf_lab.captures.exporting import write_colmap, write_transforms
    from crowdnerf_lab.captures.intake.ingest import ingest
    from crowdnerf_lab.captures.poses.adding import add_captures
    from crowdnerf_lab.captures.poses.calibration import CalibrationReport, calibrate
    from crowdnerf_lab.captures.privacy.anonymisation import anonymised
    from crowdnerf_lab.captures.privacy.faces import find_faces
    from crowdnerf_lab.captures.privacy.forgetting import forget
    from crowdnerf_lab.captures.privacy.publishing import published
    from crowdnerf_lab.captures.reading import read_captures
    from crowdnerf_lab.captures.scenes import read_scene
    from crowdnerf_lab.captures.screening.consistency import screen_poses
    from crowdnerf_lab.captures.screening.screen import ScreeningReport, screen
    from crowdnerf_lab.captures.video.frame_selection import photos_from_clips, select_frames
    from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact, write_artefact
    from crowdnerf_lab.catalogue.card import ModelCard
    from crowdnerf_lab.catalogue.catalogue import Catalogue
    from crowdnerf_lab.catalogue.select import Capability, Selection, Target, reselect, select, select_set
    from crowdnerf_lab.catalogue.verify import Verification, verify
    from crowdnerf_lab.devices.fitting import Fitted, fit_to
    from crowdnerf_lab.devices.ladder import Ladder
    from crowdnerf_lab.devices.measure import Latency, measure_latency
    from crowdnerf_lab.devices.profile import DeviceProfile, device_profiles, read_profile
    from crowdnerf_lab.distillation import Distillation, distil
    from crowdnerf_lab.enhanced_views import EnhancedView, enhanced_view
    from crowdnerf_lab.fields.appearance import Appearance
    from crowdnerf_lab.fields.baked import BakedField
    from crowdnerf_lab.fields.baking import bake
    from crowdnerf_lab.fields.field import RadianceField
    from crowdnerf_lab.fields.frequency_mlp import FrequencyMLP
    from crowdnerf_lab.fields.hash_grid import HashGrid
    from crowdnerf_lab.fields.sh_grid import SHGrid
    from crowdnerf_lab.fields.storage import load_field, save_field
    from crowdnerf_lab.fit_settings import FitSettings, settings_for
    from crowdnerf_lab.geometry import Mesh, PointCloud, mesh_of, points_of, write_geometry
    from crowdnerf_lab.light_fields.light_field import LightField
    from crowdnerf_lab.light_fields.light_slab import LightSlab
    from crowdnerf_lab.light_fields.plane_features import PlaneFeatures
    from crowdnerf_lab.light_fields.ray_mlp import RayMLP
    from crowdnerf_lab.light_fields.students import untrained_student
    from crowdnerf_lab.metrics import Quality, psnr, quality
    from crowdnerf_lab.network.serving import RunningService, serve
    from crowdnerf_lab.network.ue import LocalModel, load_artefact
    from crowdnerf_lab.network.ue_client import UE
    from crowdnerf_lab.network.ues.rehearsal import Rehearsal, live_service_of, service_of
    from crowdnerf_lab.network.updates.evening import evening_of
    from crowdnerf_lab.network.views.view_engine import EncodedView, ViewRequest, decode_view, render_and_encode
    from crowdnerf_lab.pose_refinement import PoseErrors, pose_errors
    from crowdnerf_lab.presets import Preset, preset
    from crowdnerf_lab.rays import Rays
    from crowdnerf_lab.rendering import Rendered, render_view
    from crowdnerf_lab.robustness import OutlierMaps, doubt_map
    from crowdnerf_lab.scene import Bounds, PosedScene
    from crowdnerf_lab.training import Fit, fit
    from crowdnerf_lab.training_control import TrainingControl
    from crowdnerf_lab.uncertainty import Uncertainty, gather_evidence, uncertainty_of_view
    from crowdnerf_lab.workbench import Workbench, open_workbench

__all__ = [
    "UE",
    "Appearance",
    "Artefact",
    "BakedField",
    "Bounds",
    "CalibrationReport",
    "Cameras",
    "Capability",
    "Capture",
    "CaptureSet",
    "Catalogue",
    "Coverage",
    "DeviceProfile",
    "Distillation",
    "EncodedView",
    "EnhancedView",
    "Fit",
    "FitSettings",
    "Fitted",
    "FrequencyMLP",
    "HashGrid",
    "Ladder",
    "Latency",
    "LightField",
    "LightSlab",
    "LocalModel",
    "Mesh",
    "ModelCard",
    "OutlierMaps",
    "Photo",
    "PlaneFeatures",
    "PointCloud",
    "PoseErrors",
    "PosedScene",
    "Preset",
    "Quality",
    "RadianceField",
    "RayMLP",
    "Rays",
    "Rehearsal",
    "Rendered",
    "RunningService",
    "SHGrid",
    "ScreeningReport",
    "Selection",
    "Target",
    "TrainingControl",
    "Uncertainty",
    "Verification",
    "ViewRequest",
    "Workbench",
    "add_captures",
    "anonymised",
    "bake",
    "calibrate",
    "concert",
    "coverage",
    "decode_view",
    "device_profiles",
    "distil",
    "doubt_map",
    "enhanced_view",
    "evening_of",
    "figures",
    "find_faces",
    "fit",
    "fit_to",
    "forget",
    "gather_evidence",
    "ingest",
    "live_service_of",
    "load_artefact",
    "load_field",
    "look_at",
    "measure_latency",
    "mesh_of",
    "open_artefact",
    "open_workbench",
    "photos_from_clips",
    "pinhole",
    "points_of",
    "pose_errors",
    "preset",
    "psnr",
    "published",
    "quality",
    "read_captures",
    "read_profile",
    "read_scene",
    "render_and_encode",
    "render_view",
    "requests",
    "reselect",
    "save_field",
    "screen",
    "screen_poses",
    "select",
    "select_frames",
    "select_set",
    "serve",
    "service_of",
    "settings_for",
    "synchronise",
    "uncertainty_of_view",
    "untrained_student",
    "verify",
    "widgets",
    "write_artefact",
    "write_captures",
    "write_colmap",
    "write_geometry",
    "write_transforms",
]

_MODULES = ("figures", "widgets")
_NAMES_OF = {
    "cameras": ("Cameras", "look_at", "pinhole"),
    "captures.bundle": ("Capture", "CaptureSet", "Photo", "concert", "write_captures"),
    "captures.clocks.synchronisation": ("synchronise",),
    "captures.coverage": ("Coverage", "coverage", "requests"),
    "captures.exporting": ("write_colmap", "write_transforms"),
    "captures.intake.ingest": ("ingest",),
    "captures.poses.adding": ("add_captures",),
    "captures.poses.calibration": ("CalibrationReport", "calibrate"),
    "captures.privacy.anonymisation": ("anonymised",),
    "captures.privacy.faces": ("find_faces",),
    "captures.privacy.forgetting": ("forget",),
    "captures.privacy.publishing": ("published",),
    "captures.reading": ("read_captures",),
    "captures.scenes": ("read_scene",),
    "captures.screening.consistency": ("screen_poses",),
    "captures.screening.screen": ("ScreeningReport", "screen"),
    "captures.video.frame_selection": ("photos_from_clips", "select_frames"),
    "catalogue.artefact": ("Artefact", "open_artefact", "write_artefact"),
    "catalogue.card": ("ModelCard",),
    "catalogue.catalogue": ("Catalogue",),
    "catalogue.select": ("Capability", "Selection", "Target", "reselect", "select", "select_set"),
    "catalogue.verify": ("Verification", "verify"),
    "devices.fitting": ("Fitted", "fit_to"),
    "devices.ladder": ("Ladder",),
    "devices.measure": ("Latency", "measure_latency"),
    "devices.profile": ("DeviceProfile", "device_profiles", "read_profile"),
    "distillation": ("Distillation", "distil"),
    "enhanced_views": ("EnhancedView", "enhanced_view"),
    "fields.appearance": ("Appearance",),
    "fields.baked": ("BakedField",),
    "fields.baking": ("bake",),
    "fields.field": ("RadianceField",),
    "fields.frequency_mlp": ("FrequencyMLP",),
    "fields.hash_grid": ("HashGrid",),
    "fields.sh_grid": ("SHGrid",),
    "fields.storage": ("load_field", "save_field"),
    "fit_settings": ("FitSettings", "settings_for"),
    "geometry": ("Mesh", "PointCloud", "mesh_of", "points_of", "write_geometry"),
    "light_fields.light_field": ("LightField",),
    "light_fields.light_slab": ("LightSlab",),
    "light_fields.plane_features": ("PlaneFeatures",),
    "light_fields.ray_mlp": ("RayMLP",),
    "light_fields.students": ("untrained_student",),
    "metrics": ("Quality", "psnr", "quality"),
    "network.updates.evening": ("evening_of",),
    "network.ues.rehearsal": ("Rehearsal", "live_service_of", "service_of"),
    "network.serving": ("RunningService", "serve"),
    "network.ue": ("LocalModel", "load_artefact"),
    "network.ue_client": ("UE",),
    "network.views.view_engine": ("EncodedView", "ViewRequest", "decode_view", "render_and_encode"),
    "pose_refinement": ("PoseErrors", "pose_errors"),
    "presets": ("Preset", "preset"),
    "rays": ("Rays",),
    "rendering": ("Rendered", "render_view"),
    "robustness": ("OutlierMaps", "doubt_map"),
    "scene": ("Bounds", "PosedScene"),
    "training": ("Fit", "fit"),
    "training_control": ("TrainingControl",),
    "uncertainty": ("Uncertainty", "gather_evidence", "uncertainty_of_view"),
    "workbench": ("Workbench", "open_workbench"),
}
_NETWORK = ("fastapi", "flute", "httpx", "prometheus_client", "raptorq", "uvicorn", "websockets")
"""What the extra `network` installs."""
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in _NETWORK:
            raise
        raise ImportError(f'cn.{name} needs {error.name}: pip install "crowdnerf-lab[network]"') from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

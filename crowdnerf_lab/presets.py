"""How large and how long: the only place that knows sizes and times of the notebook series."""

from dataclasses import dataclass

from crowdnerf_lab.catalogue.card import Format
from crowdnerf_lab.network.updates.update_settings import UpdateSettings


@dataclass(frozen=True)
class Preset:
    """Sizes of one run of the series; *_seconds are budgets of wall-clock time."""

    name: str
    photo_downscale: int
    calibration_photos: int
    """Photos given to calibration; 0 means all."""
    coverage_cells: int
    """Cells along the longest side of a map of what photos show."""
    quick_fit_seconds: float
    """The one-page tour's field."""
    fit_seconds: float
    """The field that the later notebooks use."""
    ablation_seconds: float
    """Each row of a comparison between fields."""
    least_psnr: float
    """Held-out PSNR, dB, below which a notebook calls its field broken."""
    distil_views: int
    distil_seconds: float
    """Each student."""
    students: tuple[str, ...]
    """Families and sizes that are distilled; the first is the lesson's."""
    view_width: int
    view_height: int
    """What a UE shows."""
    formats: tuple[Format, ...]
    """In which students are offered to devices."""
    tiers: tuple[str, ...]
    """In which baked fields are offered."""
    scales: tuple[float, ...]
    """Of a view's sides, at which baked fields draw."""
    importance_batches: int
    """Batches of rays by which the numbers of a field are weighed, see ImportanceSettings."""
    held_out_views: int
    """Views that a notebook evaluates; 0 means all."""
    judged_views: int
    """Held-out views by which each artefact is judged; 0 means all."""
    timed_frames: int
    live: UpdateSettings
    """Of the service that takes photos in while the event runs."""
    live_phones: int
    """How many of the crowd's phones send photos to it; 0 means all."""
    cell_seconds: int
    """A notebook cell that takes longer has hung."""


_FORMATS: tuple[Format, ...] = (
    "onnx_float32",
    "onnx_float16",
    "onnx_int8_qdq",
    "onnx_int8_matmul",
    "onnx_int8_mixed",
    "onnx_int8_weights",
    "onnx_int4_weights",
)
_PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="tiny",
            photo_downscale=4,
            calibration_photos=24,
            coverage_cells=12,
            quick_fit_seconds=4,
            fit_seconds=8,
            ablation_seconds=0.7,
            least_psnr=12.5,
            distil_views=24,
            distil_seconds=3,
            students=("ray_mlp XS", "plane_features XS"),
            view_width=80,
            view_height=64,
            formats=("onnx_float32", "onnx_int8_qdq"),
            tiers=("200kB", "full"),
            scales=(1.0,),
            importance_batches=8,
            held_out_views=2,
            judged_views=2,
            timed_frames=3,
            live=UpdateSettings(
                first_fit_seconds=3,
                refine_seconds=2,
                students=(),
                tiers=("full",),
                importance_batches=8,
                view_width=80,
                view_height=64,
                timed_frames=3,
                judged_every=6,
                judged_views=4,
                least_gain_db=-6.0,
                photo_downscale=4,
                patience_s=1.0,
                faces=False,
                workers=1,
            ),
            live_phones=9,
            cell_seconds=600,
        ),
        Preset(
            name="standard",
            photo_downscale=1,
            calibration_photos=0,
            coverage_cells=32,
            quick_fit_seconds=30,
            fit_seconds=80,
            ablation_seconds=8,
            least_psnr=16.5,
            distil_views=100,
            distil_seconds=90,
            students=("ray_mlp S", "plane_features S", "plane_features XS"),
            view_width=320,
            view_height=240,
            formats=_FORMATS,
            tiers=("200kB", "1MB", "4MB", "full"),
            scales=(1.0, 0.5),
            importance_batches=64,
            held_out_views=8,
            judged_views=4,
            timed_frames=20,
            live=UpdateSettings(
                first_fit_seconds=30, first_student_seconds=10, students=("plane_features S",), student_views=30
            ),
            live_phones=30,
            cell_seconds=900,
        ),
        Preset(
            name="full",
            photo_downscale=1,
            calibration_photos=0,
            coverage_cells=40,
            quick_fit_seconds=60,
            fit_seconds=600,
            ablation_seconds=120,
            least_psnr=16.5,
            distil_views=5000,
            distil_seconds=3600,
            students=("ray_mlp L", "ray_mlp S", "plane_features M", "plane_features S", "light_slab S"),
            view_width=320,
            view_height=240,
            formats=_FORMATS,
            tiers=("200kB", "1MB", "4MB", "full"),
            scales=(1.0, 0.5),
            importance_batches=64,
            held_out_views=0,
            judged_views=0,
            timed_frames=100,
            live=UpdateSettings(first_student_seconds=240, student_seconds=30, student_views=1000),
            live_phones=0,
            cell_seconds=7200,
        ),
    )
}


def preset(name: str) -> Preset:
    """The sizes called `name`: 'tiny' (CI), 'standard' (two CPU cores, 15 minutes) or 'full' (a GPU)."""
    if name not in _PRESETS:
        raise ValueError(f"no preset {name!r}; choose one of {', '.join(_PRESETS)}")
    return _PRESETS[name]

"""The figures of the notebooks, in one visual language: black ink, few colours, nothing that says nothing."""

from crowdnerf_lab.figures.coverage import coverage_map, coverage_plan, sparsification
from crowdnerf_lab.figures.crowd import capture_map, crowd_map, screening_margins, screening_sheet
from crowdnerf_lab.figures.latency import crossover, largest_models, latency_account
from crowdnerf_lab.figures.measurements import table, training_curve
from crowdnerf_lab.figures.network import LoadPoint, completion, load_curve, update_timeline
from crowdnerf_lab.figures.pictures import contact_sheet, false_colour, image_strip, side_by_side, triptych
from crowdnerf_lab.figures.rungs import latency_bars, pareto, progressive_curves, rate_distortion
from crowdnerf_lab.figures.style import REASONS

__all__ = [
    "REASONS",
    "LoadPoint",
    "capture_map",
    "completion",
    "contact_sheet",
    "coverage_map",
    "coverage_plan",
    "crossover",
    "crowd_map",
    "false_colour",
    "image_strip",
    "largest_models",
    "latency_account",
    "latency_bars",
    "load_curve",
    "pareto",
    "progressive_curves",
    "rate_distortion",
    "screening_margins",
    "screening_sheet",
    "side_by_side",
    "sparsification",
    "table",
    "training_curve",
    "triptych",
    "update_timeline",
]

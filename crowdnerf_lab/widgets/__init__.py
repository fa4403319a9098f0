"""Live views in JupyterLab: each returned widget shows itself in a cell, and its `still()` is a figure that stays.

    explorer        fly through a field live from the kernel
    ue              the reader's own browser as UE: it downloads a model and renders by itself
    capture_map     where the photos were taken, and what came of them
    training_board  a fit while it runs, with buttons that stop, resume and branch it

The names are loaded when they are first used, so that the package works without what the extra `lab` installs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crowdnerf_lab.widgets.browser_ue_widget import ue
    from crowdnerf_lab.widgets.capture_map_widget import capture_map
    from crowdnerf_lab.widgets.explorer_widget import explorer
    from crowdnerf_lab.widgets.training_board_widget import training_board

__all__ = ["capture_map", "explorer", "training_board", "ue"]

_MODULE_OF = {
    "capture_map": "capture_map_widget",
    "explorer": "explorer_widget",
    "training_board": "training_board_widget",
    "ue": "browser_ue_widget",
}
_FROM_LAB = ("anywidget", "ipywidgets", "traitlets")


def __getattr__(name: str) -> Any:
    """Load a widget on first use. Raises ImportError with the remedy where the extra `lab` is missing."""
    if name not in _MODULE_OF:
        raise AttributeError(f"crowdnerf_lab.widgets has no {name!r}; it has {', '.join(__all__)}")
    try:
        module = import_module(f"crowdnerf_lab.widgets.{_MODULE_OF[name]}")
    except ModuleNotFoundError as error:
        if error.name not in _FROM_LAB:
            raise
        raise ImportError(f'widgets.{name} needs {error.name}: pip install "crowdnerf-lab[lab]"') from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""What the machine that this runs on would say of itself as a UE."""

import importlib.util
import os

from crowdnerf_lab.catalogue.capability import Capability


def capability_here(*, link_mbit_s: float = 20.0, rtt_ms: float = 50.0) -> Capability:
    """What this machine would say of itself: its runtimes, an eighth of its memory, and how busy it is now.

    The link is not measured: 5G at the edge of a cell unless you know better.
    """
    runtimes = [name for name in ("onnxruntime", "numba") if importlib.util.find_spec(name) is not None]
    memory_mb, busy = 512.0, 0.0
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 8e6
    if hasattr(os, "getloadavg"):
        busy = min(0.9, os.getloadavg()[0] / (os.cpu_count() or 1) / 2)
    document = {
        "runtimes": runtimes,
        "precisions": ("float32", "int8"),
        "memory_mb": memory_mb,
        "busy": busy,
        "link_mbit_s": link_mbit_s,
        "rtt_ms": rtt_ms,
    }
    return Capability.model_validate(document)

"""One parallel kernel at a time: training, a live view and a notebook's cell may all be at it in one process.

Numba runs parallel kernels on one pool of threads. Where it has neither TBB nor OpenMP, two Python threads inside
such kernels at once end the process (numba's documentation, "the threading layers"); with either, they only fight for
the same cores. So they take turns, kernel by kernel: milliseconds.
"""

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

_turn = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child must not inherit a turn that another thread has
    os.register_at_fork(before=_turn.acquire, after_in_parent=_turn.release, after_in_child=_turn.release)


def in_turn(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled parallel kernel that waits for its turn. Kernels must not call one another through it."""

    @wraps(kernel)
    def called(*arguments: Any) -> Any:
        with _turn:
            return kernel(*arguments)

    return called

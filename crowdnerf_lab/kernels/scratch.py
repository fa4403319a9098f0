"""What both kinds of ops need beside their kernels: tensors as arrays, and scratch memory that outlives a step."""

import threading

import numpy as np
from torch import Tensor


class RowSums:
    """Scratch memory of the kernels that sum gradients row by row, kept between steps: allocating it anew costs more
    than filling it.

    slots [all_rows]: where a row is summed, -1 everywhere between calls; index [tasks, capacity]: the rows met;
    values [tasks, capacity, row]: their sums.
    """

    def __init__(self, tasks: int, capacity: int, all_rows: int, row: int) -> None:
        self.slots = np.full(all_rows, -1, np.int32)
        self.index = np.empty((tasks, capacity), np.int64)
        self.values = np.empty((tasks, capacity, row), np.float32)

    def fits(self, tasks: int, capacity: int, all_rows: int, row: int) -> bool:
        """Whether it is large enough."""
        enough = self.values.shape[0] >= tasks and self.values.shape[1] >= capacity and len(self.slots) >= all_rows
        return enough and self.values.shape[2] == row


_kept = threading.local()


def row_sums(tasks: int, capacity: int, all_rows: int, row: int) -> RowSums:
    """This thread's scratch memory, made larger where needed."""
    work: RowSums | None = getattr(_kept, "row_sums", None)
    if work is None or not work.fits(tasks, capacity, all_rows, row):
        work = _kept.row_sums = RowSums(tasks, capacity + capacity // 4, all_rows, row)
    return work


def array_of(tensor: Tensor) -> np.ndarray:
    """A CPU tensor's values, C-contiguous."""
    return tensor.detach().contiguous().numpy()

"""Adam for tables of which a step touches a few rows."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from crowdnerf_lab.kernels import cpu


class RowAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015) on the rows that a sparse gradient names; the other rows and their moments stay as
    they are.

    Parameters are [rows, 16] float32 tensors; gradients sparse (as `ops.composite` gives them) or dense.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        rate: float,
        betas: tuple[float, float] = (0.9, 0.99),
        epsilon: float = 1e-10,
    ) -> None:
        super().__init__(parameters, {"lr": rate, "betas": betas, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step of size lr along the gradients in `.grad`."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: Tensor, group: dict) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = _zeros_like(parameter), _zeros_like(parameter)
        state["step"] += 1
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse:
            index, values = gradient._indices()[0], gradient._values()
        else:
            index, values = torch.arange(len(parameter), device=parameter.device), gradient
        beta1, beta2 = group["betas"]
        corrections = tuple(1 / (1 - beta ** float(state["step"])) for beta in group["betas"])
        if parameter.device.type == "cpu":
            scalars = np.array([group["lr"], beta1, beta2, *corrections, group["epsilon"]], np.float32)
            arrays = (tensor.detach().numpy() for tensor in (parameter, state["mean"], state["square"], index, values))
            cpu.adam_rows(*arrays, *scalars)
            return
        mean = state["mean"][index].lerp_(values, 1 - beta1)
        square = state["square"][index].lerp_(values * values, 1 - beta2)
        state["mean"][index], state["square"][index] = mean, square
        parameter[index] -= group["lr"] * mean * corrections[0] / ((square * corrections[1]).sqrt() + group["epsilon"])


def _zeros_like(parameter: Tensor) -> Tensor:
    """Zeros of a parameter's size. On CPU numpy makes them: it asks for huge pages, which make random rows cheaper."""
    if parameter.device.type == "cpu":
        return torch.from_numpy(np.zeros(parameter.shape, np.float32))
    return torch.zeros_like(parameter)

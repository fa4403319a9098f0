"""What errors of a student's weights do to its pictures: the importances that rate-distortion choices weigh by."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.coding.quantization import Importance
from crowdnerf_lab.light_fields.light_field import LightField, cell_rays, cells_across

PREFIX = "light_field."
"""What the exported graph puts before a parameter's name."""


def importance_of(light_field: LightField, cameras: Cameras, *, draws: int = 1, seed: int = 0) -> dict[str, Importance]:
    """Importance of every parameter, by the name that it has in the exported graph, over the views of these cameras.

    Mean squared derivatives of the picture's values by Hutchinson's estimator: the gradient of the picture times random
    signs, squared, is the sum of the squared derivatives on average. `draws` of signs for each view. Layers that
    multiply each position's features alone (1x1 convolutions) get the moments of their inputs and the derivatives by
    their outputs; other parameters the best product of a number a row and one a column. On views of size view_size.
    """
    if not isinstance(light_field, nn.Module):
        raise TypeError(f"a {type(light_field).__name__} is no network; give a light field of this package")
    width, height = light_field.view_size
    sized = cameras.resized(width, height)
    rows, columns = (cells_across(side, light_field.cell) for side in (height, width))
    generator = torch.Generator().manual_seed(seed)
    squares = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in light_field.named_parameters()}
    values = 0
    with _watched(light_field) as layers:
        for k in range(len(sized)):
            rays = cell_rays(sized[k : k + 1], rows, columns, cell=light_field.cell)
            for _ in range(draws):
                picture = light_field.from_rays(*rays)
                signs = torch.randint(0, 2, picture.shape, generator=generator).to(picture) * 2 - 1
                light_field.zero_grad(set_to_none=True)
                (picture * signs).sum().backward()
                values += picture.numel()
                for name, parameter in light_field.named_parameters():
                    if parameter.grad is not None:
                        squares[name] += parameter.grad.double() ** 2
    light_field.zero_grad(set_to_none=True)
    importances = {PREFIX + name: _product(square / max(values, 1)) for name, square in squares.items()}
    for name, layer in layers.items():
        if layer.positions:
            importances[f"{PREFIX}{name}.weight"] = layer.importance(values)
    return importances


@dataclass
class _Layer:
    """Sums over the positions that a layer has seen."""

    moments: Tensor
    derivatives: Tensor
    positions: int = 0

    def see(self, inputs: Tensor, output: Tensor) -> None:
        """Take in one forward pass, and the backward pass to come."""
        features = inputs.detach().transpose(0, 1).flatten(1).double()
        self.moments += features @ features.T
        self.positions += features.shape[1]
        output.register_hook(self._see_gradient)

    def _see_gradient(self, gradient: Tensor) -> None:
        self.derivatives += gradient.double().square().sum((0, 2, 3))

    def importance(self, values: int) -> Importance:
        return Importance((self.derivatives / values).numpy(), (self.moments / self.positions).numpy())


@contextmanager
def _watched(network: nn.Module) -> Iterator[dict[str, _Layer]]:
    """Watch the layers that multiply the features of each position by one matrix."""
    layers: dict[str, _Layer] = {}
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
            layer = layers[name] = _Layer(
                torch.zeros(module.in_channels, module.in_channels, dtype=torch.float64),
                torch.zeros(module.out_channels, dtype=torch.float64),
            )
            handles.append(module.register_forward_hook(lambda _, ins, out, layer=layer: layer.see(ins[0], out)))
    try:
        yield layers
    finally:
        for handle in handles:
            handle.remove()


def _product(squares: Tensor) -> Importance:
    """A row's mean times a column's mean over the whole's: the product nearest to the squared derivatives."""
    matrix: NDArray[np.float64] = (
        squares.reshape(len(squares), -1).numpy() if squares.ndim > 1 else squares[None].numpy()
    )
    mean = matrix.mean() or 1.0
    return Importance(matrix.mean(1), matrix.mean(0) / mean)

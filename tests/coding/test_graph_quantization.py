"""Importance in the units of a graph: an error of integers counts as the error of the weights that they stand for."""

import numpy as np
import pytest
from onnx import TensorProto

from crowdnerf_lab.coding.graph_quantization import Scales, in_units_of
from crowdnerf_lab.coding.layered_file import CodedFileError
from crowdnerf_lab.coding.quantization import Importance
from crowdnerf_lab.coding.stored_tensors import StoredTensor, matrix_shape

SHAPES_AND_AXES = [((6, 5), 0), ((6, 5), 1), ((4, 3, 2, 5), 0), ((4, 3, 2, 5), 1), ((4, 3, 2, 5), 3), ((7,), 0)]


def picture_error(importance: Importance, error: np.ndarray) -> float:
    """What an error [r, c] of a tensor does to the picture."""
    moments = importance.inputs if importance.inputs.ndim == 2 else np.diag(importance.inputs)
    return float(np.einsum("i,ij,jk,ik->", importance.outputs, error, moments, error))


def tensor(shape: tuple[int, ...]) -> StoredTensor:
    return StoredTensor("w_int8", TensorProto.INT8, shape, bytes(int(np.prod(shape))))


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("scales_each", [False, True])
@pytest.mark.parametrize(("shape", "axis"), SHAPES_AND_AXES)
def test_errors_of_integers_cost_what_their_weights_errors_cost(shape, axis, scales_each, correlated):
    generator = np.random.default_rng(0)
    rows, columns = matrix_shape(shape)
    root = generator.normal(size=(columns, columns))
    moments = root @ root.T if correlated else generator.random(columns)
    of_weights = Importance(generator.random(rows), moments)
    values = generator.random(shape[axis] if scales_each else 1) + 0.1
    error = generator.normal(size=shape)
    along = values.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    of_integers = in_units_of(of_weights, Scales(values, axis), tensor(shape))
    of_weights_error = picture_error(of_weights, (error * along).reshape(rows, columns))
    assert picture_error(of_integers, error.reshape(rows, columns)) == pytest.approx(of_weights_error)


def test_scales_that_do_not_fit_are_named():
    with pytest.raises(CodedFileError, match=r"w_int8 has 4 scales along axis 1"):
        in_units_of(Importance(np.ones(6), np.ones(5)), Scales(np.ones(4), 1), tensor((6, 5)))

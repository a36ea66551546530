"""One small case per operator, to be run on ciphertexts."""

from dataclasses import replace
from functools import cache

import numpy as np
import onnx
from numpy.typing import NDArray

from fhelearn.frontends.onnx.operators.elementwise import UNARY
from tests.python.onnx_nodes.cases import Case, cases
from tests.python.onnx_nodes.laws import Quantized, cleaned, settings
from tests.python.onnx_nodes.refused import refused

_BITS = {"model_inputs": 3, "op_inputs": 3, "op_weights": 3, "model_outputs": 3}
_ELEMENTWISE = frozenset(UNARY) | {
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mul", "Or",
    "Sub", "Sum", "Where", "Xor",
}  # fmt: skip
_KEPT_ELEMENTS = 4


@cache
def smallest_case(op_type: str) -> Case:
    """The case with the most encrypted inputs and, among those, the fewest elements; long vectors are cut."""
    found = [case for case in cases() if case.op_type == op_type and not refused(case.name)]
    found.sort(key=lambda c: (-len(c.samples), sum(sample[0].size for sample in c.samples)))
    return next((cut for cut in map(_cut, found) if cut is not None), found[0])


def _cut(case: Case) -> Case | None:
    """The first elements of each input, if nothing of another shape meets them; else None."""
    shapes = {sample.shape[1:] for sample in case.samples}
    constants = any(np.prod(tensor.dims) != 1 for tensor in case.model.graph.initializer)
    if case.op_type not in _ELEMENTWISE or len(shapes) > 1 or constants or np.prod(*shapes) < _KEPT_ELEMENTS:
        return None
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for info in (*model.graph.input, *model.graph.output):
        del info.type.tensor_type.shape.dim[:]
        info.type.tensor_type.shape.dim.add().dim_value = _KEPT_ELEMENTS
    samples = (sample.reshape(len(sample), -1)[:, :_KEPT_ELEMENTS] for sample in case.samples)
    return replace(case, model=model, samples=tuple(samples))


def small_program(case: Case) -> Quantized:
    """The case at 3 bits: lookups of 3 and 4 bits, whose keys are small."""
    return Quantized.of(case, cleaned(case), settings(_BITS))


def any_codes(quantized: Quantized) -> list[NDArray]:
    """One row from the whole range of the encoders."""
    rng = np.random.default_rng(0)
    encoders = quantized.network.encoders
    return [rng.integers(e.columns.lo, e.columns.hi + 1).reshape(1, *e.shape) for e in encoders]

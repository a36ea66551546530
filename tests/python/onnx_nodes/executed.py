"""One small case per operator, to be run on ciphertexts."""

from dataclasses import replace
from functools import cache

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.python.onnx_nodes.cases import Case, cases
from tests.python.onnx_nodes.laws import Quantized, cleaned, settings
from tests.python.onnx_nodes.refused import refused

_BITS = {"model_inputs": 4, "op_inputs": 4, "op_weights": 4, "model_outputs": 4}
_MOST_ELEMENTS = 1000
_KEPT_ELEMENTS = 4


@cache
def smallest_case(op_type: str) -> Case:
    """The case with the most encrypted inputs and, among those, the fewest elements; a long vector is cut."""
    found = [case for case in cases() if case.op_type == op_type and not refused(case.name)]
    case = min(found, key=lambda c: (-len(c.samples), sum(sample[0].size for sample in c.samples)))
    return case if sum(sample[0].size for sample in case.samples) <= _MOST_ELEMENTS else _cut(case)


def _cut(case: Case) -> Case:
    """The first elements of an operator that works element by element."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for info in (*model.graph.input, *model.graph.output):
        del info.type.tensor_type.shape.dim[:]
        info.type.tensor_type.shape.dim.add().dim_value = _KEPT_ELEMENTS
    (sample,) = case.samples
    return replace(case, model=model, samples=(sample.reshape(len(sample), -1)[:, :_KEPT_ELEMENTS],))


def small_program(case: Case) -> Quantized:
    """The case at 4 bits."""
    return Quantized.of(case, cleaned(case), settings(_BITS))


def rows(quantized: Quantized) -> list[NDArray]:
    """Codes: those of the recorded row, and any of the encoders' whole range."""
    rng = np.random.default_rng(0)
    recorded = quantized.network.quantize([sample[:1] for sample in quantized.case.samples])
    drawn = [
        rng.integers(e.columns.lo, e.columns.hi + 1).reshape(1, *e.shape) for e in quantized.network.encoders
    ]
    return [np.concatenate(pair) for pair in zip(recorded, drawn, strict=True)]

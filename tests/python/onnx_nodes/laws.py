"""What every node test obeys when it is encrypted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from fhelearn.backends.native import NativeEngine
from fhelearn.frontends.onnx import NBits, QuantizedNetwork, Settings, import_network
from fhelearn.ir import evaluate
from fhelearn.onnx.cleanup import CleanModel, clean
from fhelearn.onnx.forward import get_equivalent_numpy_forward
from fhelearn.onnx.reference_ops import corrected_operators
from tests.python.onnx_node_tests import NodeTest
from tests.python.onnx_nodes.cases import AT_THE_CLIENT, Case, as_declared, in_float64
from tests.python.onnx_nodes.deviation import deviations

_ROUNDING = 2.0**-36
"""Of float64, relative: some thousand operations of 2**-53 each, in another order than the reference."""


@dataclass(frozen=True)
class Quantized:
    """A case in integers, and the clear steps beside it."""

    case: Case
    parts: CleanModel
    network: QuantizedNetwork

    @classmethod
    def of(cls, case: Case, parts: CleanModel, settings: Settings) -> "Quantized":
        rows = case.samples
        if parts.before is not None:
            forward = _forward(parts.before)
            rows = [
                np.stack(column) for column in zip(*(forward(*row) for row in zip(*rows, strict=True)), strict=True)
            ]
        return cls(case, parts, import_network(parts.body, [np.asarray(r, dtype=np.float64) for r in rows], settings))

    def decoded(self, outputs: Sequence[NDArray]) -> list[NDArray]:
        """The floats of the only row of the outputs, in the shapes that the graph declares."""
        shapes = [[d.dim_value for d in info.type.tensor_type.shape.dim] for info in self.parts.body.graph.output]
        return [y.reshape(shape) for y, shape in zip(self.network.dequantize(outputs), shapes, strict=True)]


def settings(n_bits: int | dict[str, int] = 8, **options: str) -> Settings:
    return Settings(NBits.of(n_bits), **options)


def cleaned(case: Case) -> CleanModel:
    """The case ready to be imported; what the client must compute is cut off."""
    return clean(case.model, cut=case.op_type in AT_THE_CLIENT)


def assert_near_the_float_model(quantized: Quantized) -> None:
    """Engine and reference agree bit for bit; the answer is as near as the program's own roundings allow."""
    network, case = quantized.network, quantized.case
    q = network.quantize([sample[:1] for sample in case.samples])
    expected = evaluate(network.program, q)
    engine = NativeEngine(network.program)
    assert_equal(engine.run(q), expected, case.name)
    corners = [
        np.stack([np.broadcast_to(b, e.columns.lo.shape).reshape(e.shape) for b in (e.columns.lo, e.columns.hi)])
        for e in network.encoders
    ]
    assert_equal(
        engine.run(corners, on_overflow="wrap"), evaluate(network.program, corners, on_overflow="wrap"), case.name
    )
    x = [encoder.dequantize(codes).reshape(encoder.shape) for encoder, codes in zip(network.encoders, q, strict=True)]
    answer = quantized.decoded(expected)
    if quantized.parts.after is not None:
        assert case.op_type in AT_THE_CLIENT
        _assert_within(answer, x, [np.zeros(())], case.name)
        assert_equal(_forward(quantized.parts.after)(*x), _forward(case.model)(*x), case.name)
        return
    wanted = _wanted(case, x, [encoder.columns.scale[0] for encoder in network.encoders])
    steps = deviations(network.raw, q)
    allowed = [
        off.reshape(y.shape) * decoder.columns.scale.reshape(y.shape)
        for off, decoder, y in zip(steps, network.decoders, wanted, strict=True)
    ]
    _assert_within(answer, wanted, [each + _merging(case) for each in allowed], case.name)


def _merging(case: Case) -> float:
    """What sums of floats may cost that take a scale for a multiple of another: half a step of 8 bits on each sum."""
    floats = all(x.dtype.kind == "f" for x in case.test.data_sets[0][0])
    sums = len(case.samples) - 1
    if case.op_type not in ("Add", "Gemm", "Mean", "Sub", "Sum") or not floats or not sums:
        return 0.0
    forward = _forward(case.model)
    results = [forward(*row)[0] for row in zip(*case.samples, strict=True)]
    span = max(np.ptp(results), sum(np.ptp(sample) for sample in case.samples))  # of the last sum, and of those before
    return sums * span / (2**8 - 1) / 2


def _wanted(case: Case, x: Sequence[NDArray], scales: Sequence[float]) -> list[NDArray]:
    """The float model's outputs; one step beside where rounding to the grid led out of a function's domain."""
    result = None
    for step in (0, -1, 1):
        shifted = [
            as_declared(each + step * s, i) for each, s, i in zip(x, scales, case.model.graph.input, strict=True)
        ]
        outputs = [np.asarray(y, dtype=np.float64) for y in _forward(case.model)(*shifted)]
        result = (
            outputs if result is None else [np.where(np.isnan(y), o, y) for y, o in zip(result, outputs, strict=True)]
        )
    return result


def _assert_within(found: Sequence[NDArray], wanted: Sequence[NDArray], allowed: Sequence[NDArray], name: str) -> None:
    for y, want, distance in zip(found, wanted, allowed, strict=True):
        assert y.shape == want.shape, name
        error, limit = np.abs(y - want), distance + _ROUNDING * np.maximum(1.0, np.abs(want))
        assert (error <= limit).all(), f"{name}: off by up to {error.max()}, allowed up to {np.max(limit)}"


def assert_equal(found: Sequence[NDArray], expected: Sequence[NDArray], name: str) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


def assert_forward_as_recorded(test: NodeTest) -> None:
    """The NumPy forward gives the recorded outputs."""
    forward = get_equivalent_numpy_forward(test.model)
    for inputs, outputs in test.data_sets:
        answer = forward(*inputs)
        for found, expected in zip(answer if isinstance(answer, tuple) else (answer,), outputs, strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=test.rtol, atol=test.atol)


def _forward(model: onnx.ModelProto):
    """All outputs of one row in float64, by ONNX's reference implementation."""
    wide = in_float64(model)
    evaluator = ReferenceEvaluator(wide, new_ops=list(corrected_operators()))
    names = [info.name for info in wide.graph.input]
    return lambda *x: [np.asarray(y) for y in evaluator.run(None, dict(zip(names, x, strict=True)))]

"""Proof that a graph answers many rows at once as it answers them one after the other.

A value is *constant* (the same for one row and for many), a *shape* (it depends on the number of rows, but not on what
is in them) or made of *rows*: on axis 0 it has one part per row of the inputs, made of that row alone. Every node must
pass rows on as rows by a rule of its operator; an operator without a rule proves nothing, and its graph is run row by
row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx
    from onnx.reference import ReferenceEvaluator

_ELEMENTWISE = {
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "Cast", "CastLike", "Ceil", "Celu",
    "Clip", "Cos", "Cosh", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual",
    "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max",
    "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu",
    "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan",
    "Tanh", "ThresholdedRelu", "Where", "Xor",
}  # fmt: skip
_PER_IMAGE = {
    "AveragePool", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalMaxPool",
    "InstanceNormalization", "LpPool", "MaxPool", "SpaceToDepth",
}  # fmt: skip
_ALONG_AXIS = {"ArgMax": 0, "ArgMin": 0, "Hardmax": -1, "LogSoftmax": -1, "Softmax": -1}
_REDUCTIONS = {
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
}  # fmt: skip


class BatchProof:
    """Whether a model, whose inputs are all declared with extent 1 on axis 0, may be run on many rows at once."""

    def __init__(self, model: onnx.ModelProto, evaluator: ReferenceEvaluator) -> None:
        self._graph = model.graph
        self._evaluator = evaluator

    def holds(self, feeds: Mapping[str, NDArray[Any]]) -> bool:
        """Whether one run on `feeds` is sure to equal the runs on each of their rows, concatenated on axis 0.

        Equal as real numbers: libraries may round sums in other orders when there are more rows.
        The answer depends on the shapes of `feeds` only: the graph is run to see the shapes and constants in it.
        """
        try:
            with np.errstate(all="ignore"):
                one = self._evaluator.run(None, {name: feed[:1] for name, feed in feeds.items()}, intermediate=True)
                many = self._evaluator.run(None, dict(feeds), intermediate=True)
        except Exception:  # a graph that does not take many rows, for whatever reason
            return False
        values = _Values(self._graph, _arrays(one), _arrays(many), len(next(iter(feeds.values()))))
        return all(values.admit(node) for node in self._graph.node) and all(
            values.kinds.get(output.name) == "rows" for output in self._graph.output
        )


def _arrays(results: Any) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(value) for name, value in results.items() if isinstance(value, (np.ndarray, np.generic))}


@dataclass
class _Values:
    """The values of `graph` when its inputs have one row and when they have `n`, and their kinds."""

    graph: onnx.GraphProto
    one: dict[str, NDArray[Any]]
    many: dict[str, NDArray[Any]]
    n: int

    def __post_init__(self) -> None:
        self.kinds = {value.name: "rows" for value in self.graph.input}
        self.kinds.update({tensor.name: "constant" for tensor in self.graph.initializer})

    def admit(self, node: onnx.NodeProto) -> bool:
        """Set the kind of what `node` computes, if it has one."""
        kinds = {self.kinds.get(name, "unknown") for name in node.input if name}
        if "unknown" in kinds or any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            return False
        spread = node.op_type in ("ConstantOfShape", "Expand") and "shape" in kinds
        if node.op_type in ("Shape", "Size") and "rows" in kinds:
            kind = "shape"
        elif "rows" in kinds or spread:
            kind = "rows"
            if not (_is_rowwise(node, self) and all(self._one_part_per_row(name) for name in node.output if name)):
                return False
        else:
            kind = "shape" if "shape" in kinds else "constant"
        for name in filter(None, node.output):
            one, many = self.one.get(name), self.many.get(name)
            same = kind == "shape" and one is not None and many is not None and np.array_equal(one, many)
            self.kinds[name] = "constant" if same else kind
        return True

    def _one_part_per_row(self, name: str) -> bool:
        one, many = self.shape(name, self.one), self.shape(name)
        return one is not None and one[:1] == (1,) and many == (self.n, *one[1:])

    def shape(self, name: str, values: Mapping[str, NDArray[Any]] | None = None) -> tuple[int, ...] | None:
        """Shape of a tensor, of many rows unless other `values` are given; None for what is no tensor."""
        array = (self.many if values is None else values).get(name)
        return None if array is None else array.shape

    def kind(self, node: onnx.NodeProto, index: int) -> str:
        """Kind of the input at `index`; "" if it is left out."""
        return self.kinds[node.input[index]] if index < len(node.input) and node.input[index] else ""

    def constant(self, node: onnx.NodeProto, index: int) -> NDArray[Any] | None:
        """Elements of the input at `index`; None if it is left out or no constant."""
        return self.many.get(node.input[index]) if self.kind(node, index) == "constant" else None

    def rank(self, name: str) -> int:
        """Rank of a tensor; -1 for what is none."""
        return len(shape) if (shape := self.shape(name)) is not None else -1

    def only_first_has_rows(self, node: onnx.NodeProto) -> bool:
        """Whether all inputs but the first are constants or left out."""
        others = range(1, len(node.input))
        return self.kind(node, 0) == "rows" and all(self.kind(node, i) in ("constant", "") for i in others)

    def broadcasts_within_rows(self, node: onnx.NodeProto, rank: int) -> bool:
        """Whether operands of a result of `rank` meet their own row only: none brings an axis 0 of its own."""
        for index, name in enumerate(node.input):
            kind = self.kind(node, index)
            if kind == "rows" and self.rank(name) != rank:
                return False
            if kind == "constant":
                shape = self.shape(name)
                if shape is None or len(shape) > rank or (len(shape) == rank and shape[0] != 1):
                    return False
        return all(self.kind(node, index) != "shape" for index in range(len(node.input)))


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    from onnx.helper import get_attribute_value

    return next((get_attribute_value(item) for item in node.attribute if item.name == name), default)


def _is_rowwise(node: onnx.NodeProto, values: _Values) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _ELEMENTWISE:
        return values.broadcasts_within_rows(node, values.rank(node.output[0]))
    if node.op_type in _PER_IMAGE:
        return values.only_first_has_rows(node) and len(node.output) == 1  # indices of MaxPool count the rows before
    if node.op_type in _ALONG_AXIS:
        return _axis_of(node, values, _ALONG_AXIS[node.op_type]) != 0
    if node.op_type in _REDUCTIONS:
        return values.only_first_has_rows(node) and _spares_axis_0(node, values)
    rule = _RULES.get(node.op_type)
    return rule is not None and rule(node, values)


def _axis_of(node: onnx.NodeProto, values: _Values, default: int) -> int:
    axis = int(_attribute(node, "axis", default))
    return axis if axis >= 0 else axis + values.rank(node.input[0])


def _spares_axis_0(node: onnx.NodeProto, values: _Values) -> bool:
    """Whether the axes (attribute or second input) are given, and axis 0 is not among them."""
    axes = _attribute(node, "axes", None)
    axes = values.constant(node, 1) if axes is None else axes
    rank = values.rank(node.output[0] if node.op_type == "Unsqueeze" else node.input[0])
    return axes is not None and np.size(axes) > 0 and rank > 0 and 0 not in np.ravel(axes) % rank


def _all_rows_and_another_axis(node: onnx.NodeProto, values: _Values) -> bool:
    kinds = {values.kind(node, index) for index in range(len(node.input))}
    return kinds == {"rows"} and _axis_of(node, values, 0) != 0


def _first_and_another_axis(node: onnx.NodeProto, values: _Values) -> bool:
    return values.only_first_has_rows(node) and _axis_of(node, values, 0) != 0


def _batch_normalization(node: onnx.NodeProto, values: _Values) -> bool:
    return values.only_first_has_rows(node) and not _attribute(node, "training_mode", 0) and len(node.output) == 1


def _dropout(node: onnx.NodeProto, values: _Values) -> bool:
    training = values.constant(node, 2)
    return values.only_first_has_rows(node) and (values.kind(node, 2) == "" or (training is not None and not training))


def _expand(node: onnx.NodeProto, values: _Values) -> bool:
    rank, kind = values.rank(node.output[0]), values.kind(node, 0)
    if kind == "rows":
        return values.kind(node, 1) != "rows" and values.rank(node.input[0]) == rank
    shape = values.shape(node.input[0])
    return kind == "constant" and shape is not None and (len(shape) < rank or shape[:1] == (1,))


def _flatten(node: onnx.NodeProto, values: _Values) -> bool:
    return _axis_of(node, values, 1) == 1


def _gather(node: onnx.NodeProto, values: _Values) -> bool:
    data, indices = values.kind(node, 0), values.kind(node, 1)
    if (data, indices) == ("rows", "constant"):
        return _axis_of(node, values, 0) != 0
    return (data, indices) == ("constant", "rows") and _axis_of(node, values, 0) == 0


def _gemm(node: onnx.NodeProto, values: _Values) -> bool:
    if values.kind(node, 0) != "rows" or values.kind(node, 1) != "constant" or _attribute(node, "transA", 0):
        return False
    if values.kind(node, 2) == "constant":
        shape = values.shape(node.input[2])
        return shape is not None and (len(shape) < 2 or shape[0] == 1)
    return values.kind(node, 2) in ("", "rows") and (not values.kind(node, 2) or values.rank(node.input[2]) == 2)


def _layer_normalization(node: onnx.NodeProto, values: _Values) -> bool:
    return values.only_first_has_rows(node) and _axis_of(node, values, -1) != 0 and len(node.output) == 1


def _matmul(node: onnx.NodeProto, values: _Values) -> bool:
    ranks = [values.rank(name) for name in node.input]
    if values.kind(node, 0) == "rows" and values.kind(node, 1) == "constant" and ranks[1] <= 2:
        return ranks[0] >= 2 and ranks[1] >= 1
    return max(ranks) >= 3 and values.broadcasts_within_rows(node, max(ranks))


def _one_hot(node: onnx.NodeProto, values: _Values) -> bool:
    axis = int(_attribute(node, "axis", -1))
    return values.only_first_has_rows(node) and (axis if axis >= 0 else axis + values.rank(node.output[0])) != 0


def _pad(node: onnx.NodeProto, values: _Values) -> bool:
    pads = values.constant(node, 1)
    if not values.only_first_has_rows(node) or pads is None:
        return False
    if values.kind(node, 3):
        axes = values.constant(node, 3)
        return axes is not None and 0 not in axes % values.rank(node.input[0])
    return bool(pads[0] == 0 and pads[len(pads) // 2] == 0)


def _reshape(node: onnx.NodeProto, values: _Values) -> bool:
    return values.kind(node, 0) == "rows" and values.kind(node, 1) in ("constant", "shape")  # the extents are compared


def _resize(node: onnx.NodeProto, values: _Values) -> bool:
    plain = _attribute(node, "keep_aspect_ratio_policy", b"stretch") == b"stretch"
    crops = _attribute(node, "coordinate_transformation_mode", b"half_pixel") == b"tf_crop_and_resize"
    axes = _attribute(node, "axes", None)
    rank, scales = values.rank(node.input[0]), values.constant(node, 2)
    by_size = not values.kind(node, 2) or (scales is not None and scales.size == 0)
    same_rows = (
        0 not in np.array(axes) % rank if axes is not None else by_size or (scales is not None and scales[0] == 1)
    )
    rows_only = values.kind(node, 0) == "rows" and all(values.kind(node, i) != "rows" for i in (1, 2, 3))
    return rows_only and plain and not crops and bool(same_rows)


def _slice(node: onnx.NodeProto, values: _Values) -> bool:
    axes = values.constant(node, 3)
    return values.only_first_has_rows(node) and axes is not None and 0 not in axes % values.rank(node.input[0])


def _squeeze(node: onnx.NodeProto, values: _Values) -> bool:
    return values.only_first_has_rows(node) and _spares_axis_0(node, values)


def _tile(node: onnx.NodeProto, values: _Values) -> bool:
    repeats = values.constant(node, 1)
    return values.only_first_has_rows(node) and repeats is not None and bool(repeats[0] == 1)


def _transpose(node: onnx.NodeProto, values: _Values) -> bool:
    return bool(_attribute(node, "perm", [-1])[0] == 0)


_RULES: dict[str, Callable[[onnx.NodeProto, _Values], bool]] = {
    "BatchNormalization": _batch_normalization,
    "Concat": _all_rows_and_another_axis,
    "ConstantOfShape": lambda node, values: True,  # one value throughout, and the extents are compared
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "LayerNormalization": _layer_normalization,
    "MatMul": _matmul,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _first_and_another_axis,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _squeeze,
}

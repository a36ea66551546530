"""ONNX graphs and nodes as functions on NumPy arrays, evaluated by the ONNX project's reference implementation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fhelearn.exceptions import LoweringError, ModelFormatError, UnsupportedOperatorError
from fhelearn.onnx.load import load_model
from fhelearn.onnx.reference_ops import evaluator_of, reason_of
from fhelearn.onnx.rows import BatchProof

if TYPE_CHECKING:
    import onnx

NodeFunction: TypeAlias = Callable[..., tuple[NDArray[Any], ...]]

_SHAPES_REMEMBERED = 64


class NumpyForward:
    """A float ONNX graph as a function; made by `get_equivalent_numpy_forward`.

    Calling it takes one array per graph input, by position or by the input's name, and returns one array if the graph
    has one output, else a tuple. Numbers become the type that the graph declares; integers must fit it exactly.

    Attributes
    ----------
    input_names, output_names : tuple of str
        Names in the order of the arguments and of the results.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._inputs = tuple(_Input(value) for value in model.graph.input)
        self.input_names = tuple(source.name for source in self._inputs)
        self.output_names = tuple(value.name for value in model.graph.output)
        self._evaluator = evaluator_of(model)
        self._takes_one_row = bool(self._inputs) and all(source.shape[:1] == (1,) for source in self._inputs)
        self._proof = BatchProof(model, self._evaluator) if self._takes_one_row else None
        self._proved: dict[tuple[tuple[int, ...], ...], bool] = {}

    def __call__(self, *arrays: ArrayLike, **named: ArrayLike) -> NDArray[Any] | tuple[NDArray[Any], ...]:
        """Evaluate the graph.

        Where every input is declared with extent 1 on axis 0, n rows are answered as if they were run one after the
        other and the results were concatenated on axis 0.

        Raises
        ------
        ValueError
            If an argument is missing, is not an input's name, or is of another rank, extent or kind than declared.
        LoweringError
            If an operator cannot be evaluated on these arrays.
        """
        feeds = self._feeds(arrays, named)
        rows = {len(feed) for feed in feeds.values()} if self._takes_one_row else {1}
        if len(rows) > 1:
            counts = ", ".join(f"{name!r}: {len(feed)}" for name, feed in feeds.items())
            raise ValueError(f"all inputs must have the same number of rows (axis 0), got {counts}")
        (n,) = rows
        outputs = self._run(feeds) if n == 1 or (n and self._is_batchable(feeds)) else self._run_by_row(feeds, n)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _feeds(self, arrays: Sequence[ArrayLike], named: dict[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        expected = ", ".join(map(repr, self.input_names)) or "none"
        if len(arrays) > len(self.input_names):
            raise ValueError(f"expected {len(self.input_names)} inputs ({expected}), got {len(arrays)}")
        given = dict(zip(self.input_names, arrays, strict=False))
        for name in named:
            if name in given or name not in self.input_names:
                reason = "is given twice" if name in given else "is not an input of the graph"
                raise ValueError(f"{name!r} {reason}; inputs are {expected}")
        given.update(named)
        if missing := [name for name in self.input_names if name not in given]:
            raise ValueError(f"no array for input {', '.join(map(repr, missing))}; inputs are {expected}")
        symbols: dict[str, int] = {}
        return {
            source.name: source.checked(given[source.name], self._takes_one_row, symbols) for source in self._inputs
        }

    def _is_batchable(self, feeds: dict[str, NDArray[Any]]) -> bool:
        if self._proof is None:
            return True
        shapes = tuple(feed.shape for feed in feeds.values())
        if shapes not in self._proved:
            if len(self._proved) >= _SHAPES_REMEMBERED:
                self._proved = {}
            self._proved[shapes] = self._proof.holds(feeds)
        return self._proved[shapes]

    def _run(self, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            # Infinities and NaN are answers here; which of them NumPy warns of differs between operators.
            with np.errstate(all="ignore"):
                return [np.asarray(output) for output in self._evaluator.run(None, feeds)]
        except Exception as error:  # whatever an operator trips over
            raise LoweringError(f"the graph cannot be evaluated on these arrays: {reason_of(error)}") from error

    def _run_by_row(self, feeds: dict[str, NDArray[Any]], n: int) -> list[NDArray[Any]]:
        # Without rows, one that is thrown away tells the shapes.
        given = feeds if n else {name: np.zeros((1, *feed.shape[1:]), feed.dtype) for name, feed in feeds.items()}
        answers = [self._run({name: feed[i : i + 1] for name, feed in given.items()}) for i in range(max(1, n))]
        for name, output in zip(self.output_names, answers[0], strict=True):
            if output.ndim == 0:
                raise ValueError(f"output {name!r} is a scalar, so the answers to {n} rows cannot be concatenated")
        return [np.concatenate(parts) if n else parts[0][:0] for parts in zip(*answers, strict=True)]


class _Input:
    """What a graph declares of one input."""

    def __init__(self, value: onnx.ValueInfoProto) -> None:
        from onnx.helper import tensor_dtype_to_np_dtype

        kind = value.type.tensor_type
        if value.type.WhichOneof("value") != "tensor_type" or not kind.elem_type:
            raise ModelFormatError(
                f"input {value.name!r} is not a tensor of a declared type; only tensors are supported"
            )
        self.name = value.name
        self.dtype = np.dtype(tensor_dtype_to_np_dtype(kind.elem_type))
        self.has_shape = kind.HasField("shape")
        self.shape = tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in kind.shape.dim
        )

    def checked(self, value: ArrayLike, any_rows: bool, symbols: dict[str, int]) -> NDArray[Any]:
        """`value` in the declared type; `symbols` collects the extents of symbolic axes."""
        array = self._converted(np.asarray(value))
        if not self.has_shape:
            return array
        declared = f"({', '.join('?' if extent is None else str(extent) for extent in self.shape)})"
        if array.ndim != len(self.shape):
            raise ValueError(f"input {self.name!r} must be of shape {declared}, got {array.shape}")
        for axis, (extent, found) in enumerate(zip(self.shape, array.shape, strict=True)):
            if isinstance(extent, str):
                extent = symbols.setdefault(extent, found)
            if extent is not None and extent != found and not (any_rows and axis == 0):
                raise ValueError(
                    f"input {self.name!r} must be of shape {declared}, got {array.shape}: axis {axis} must be {extent}"
                )
        return array

    def _converted(self, array: NDArray[Any]) -> NDArray[Any]:
        source, target = array.dtype.kind, self.dtype.kind
        if array.dtype == self.dtype:
            return array
        with np.errstate(all="ignore"):
            if target == "f" and source in "biuf":
                return array.astype(self.dtype)
            if target in "iu" and source in "biu" and np.array_equal(converted := array.astype(self.dtype), array):
                return converted
        raise ValueError(
            f"input {self.name!r} must be {self.dtype}, got {array.dtype}; numbers become floats, and integers that "
            "fit become other integers, but nothing else is converted"
        )


def get_equivalent_numpy_forward(onnx_model: onnx.ModelProto) -> NumpyForward:
    """Make a function on NumPy arrays that answers as the ONNX graph.

    Parameters
    ----------
    onnx_model : onnx.ModelProto
        A model that `load_model` accepts; it is not changed.

    Returns
    -------
    NumpyForward
        ``forward(*arrays)``: arrays of the graph's input shapes, (n, ...) where axis 0 is symbolic or 1. One array if
        the graph has one output, else a tuple. Evaluated in the graph's own float types. Calls may run in parallel.

    Raises
    ------
    ModelFormatError
        If `load_model` refuses the model, or an input is not a tensor.
    UnsupportedOperatorError
        If there is no reference implementation of an operator.
    """
    return NumpyForward(load_model(onnx_model))


def node_function(node: onnx.NodeProto, opset: int) -> NodeFunction:
    """Make a function that evaluates one node of the default operator domain, attributes included.

    Parameters
    ----------
    node : onnx.NodeProto
        Without subgraphs and without references to a function's attributes; it is not changed.
    opset : int
        Version of the default domain, from 13 to the newest that the installed onnx knows.

    Returns
    -------
    callable
        ``function(*arrays)`` takes one array per entry of ``node.input`` (None for an input that is left out) and
        returns a tuple with one array per entry of ``node.output``. Operands that ONNX wants in one type are promoted
        to the widest float type among them, so that float64 stays float64 beside float32 constants. Raises ValueError
        if the number of arrays is another, LoweringError if they cannot be evaluated.

    Raises
    ------
    UnsupportedOperatorError
        If the operator has subgraphs, is of another domain, or unknown to `opset`.
    """
    import onnx

    where = f"{node.op_type} {node.name or node.output[0]!r}" if node.output else node.op_type
    if node.domain not in ("", "ai.onnx") or any(
        item.HasField("g") or item.graphs or item.ref_attr_name for item in node.attribute
    ):
        raise UnsupportedOperatorError(f"{where}: only operators of the default domain without subgraphs are functions")
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError as error:
        raise UnsupportedOperatorError(f"{where}: not an operator of opset {opset}") from error
    inputs = [f"x{number}" if name else "" for number, name in enumerate(node.input)]
    outputs = [f"y{number}" for number in range(len(node.output))]
    private = onnx.NodeProto()
    private.CopyFrom(node)
    del private.input[:], private.output[:]
    private.input.extend(inputs)
    private.output.extend(outputs)
    graph = onnx.helper.make_graph([private], "node", [], [onnx.ValueInfoProto(name=name) for name in outputs])
    evaluator = evaluator_of(graph, {"": opset})
    groups = _operand_groups(schema, len(inputs))

    def function(*arrays: NDArray[Any] | None) -> tuple[NDArray[Any], ...]:
        if len(arrays) != len(inputs):
            raise ValueError(f"{where} takes {len(inputs)} arrays, one per input, got {len(arrays)}")
        feeds = dict(zip(inputs, _promoted(arrays, groups), strict=True))
        feeds.pop("", None)
        try:
            with np.errstate(all="ignore"):
                return tuple(np.asarray(output) for output in evaluator.run(None, feeds))
        except Exception as error:  # whatever the operator trips over
            raise LoweringError(f"{where}: cannot be evaluated on these arrays: {reason_of(error)}") from error

    return function


def _operand_groups(schema: onnx.defs.OpSchema, count: int) -> list[list[int]]:
    """Positions of inputs that must be of one type, for every type variable that more than one input has."""
    declared = schema.inputs
    names = [declared[min(i, len(declared) - 1)].type_str for i in range(count)] if declared else []
    groups = [[i for i, name in enumerate(names) if name == variable] for variable in dict.fromkeys(names)]
    return [group for group in groups if len(group) > 1]


def _promoted(arrays: Sequence[NDArray[Any] | None], groups: list[list[int]]) -> list[NDArray[Any] | None]:
    result = [None if array is None else np.asarray(array) for array in arrays]
    for group in groups:
        floats = [array.dtype for i in group if (array := result[i]) is not None and array.dtype.kind == "f"]
        for i in group:
            if floats and (array := result[i]) is not None and array.dtype.kind == "f":
                result[i] = array.astype(np.result_type(*floats), copy=False)
    return result

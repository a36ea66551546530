"""Reading of ONNX graphs that nobody has checked: constants, attributes, neighbours; errors name the place."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.forest import Precision
from fhelearn.typing import FloatArray, IntArray

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_MAX_FEATURES = 2**24


def node_name(node: NodeProto) -> str:
    """How messages name a node: its operator, and its name or (where it has none) its first output."""
    return f"{node.op_type} '{node.name or (node.output[0] if node.output else '')}'"


def tensor_array(tensor: TensorProto, where: str) -> NDArray[Any]:
    """The values of a tensor. Raises LoweringError if they are corrupt, or kept outside of the model."""
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise LoweringError(f"{where}: its values are in another file; load the model with its external data")
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except Exception as error:  # corrupt tensors fail in many ways: TypeError, ValueError, KeyError of an unknown type
        raise LoweringError(f"{where}: the tensor is corrupt ({error})") from error


class Attributes:
    """The attributes of one node."""

    def __init__(self, node: NodeProto) -> None:
        self.name = node_name(node)
        self._attributes: dict[str, AttributeProto] = {}
        for attribute in node.attribute:
            if attribute.name in self._attributes:
                raise LoweringError(f"{self.name}: attribute '{attribute.name}' occurs twice")
            self._attributes[attribute.name] = attribute

    def _get(self, name: str, kind: str) -> AttributeProto | None:
        import onnx

        attribute = self._attributes.get(name)
        if attribute is not None and attribute.type != onnx.AttributeProto.AttributeType.Value(kind):
            raise LoweringError(f"{self.name}: attribute '{name}' must be of type {kind}")
        return attribute

    def kind(self, name: str) -> str | None:
        """Type of an attribute, as "INT"; None if missing."""
        import onnx

        attribute = self._attributes.get(name)
        return None if attribute is None else onnx.AttributeProto.AttributeType.Name(attribute.type)

    def integer(self, name: str, default: int) -> int:
        """An INT."""
        attribute = self._get(name, "INT")
        return default if attribute is None else int(attribute.i)

    def number(self, name: str, default: float) -> float:
        """A FLOAT."""
        attribute = self._get(name, "FLOAT")
        return default if attribute is None else float(attribute.f)

    def text(self, name: str, default: str) -> str:
        """A STRING."""
        attribute = self._get(name, "STRING")
        return default if attribute is None else attribute.s.decode("utf-8", "replace")

    def texts(self, name: str) -> list[str]:
        """STRINGS; empty if missing."""
        attribute = self._get(name, "STRINGS")
        return [] if attribute is None else [text.decode("utf-8", "replace") for text in attribute.strings]

    def integers(self, name: str) -> IntArray:
        """INTS; empty if missing."""
        attribute = self._get(name, "INTS")
        return np.array([] if attribute is None else attribute.ints, dtype=np.int64)

    def tensor(self, name: str) -> NDArray[Any] | None:
        """A TENSOR, flat; None if missing."""
        attribute = self._get(name, "TENSOR")
        return None if attribute is None else tensor_array(attribute.t, f"{self.name}: '{name}'").ravel()

    def floats(self, name: str) -> FloatArray | None:
        """FLOATS, or the tensor of floats `name` or `name` + "_as_tensor", as float64; None if both are missing."""
        import onnx

        attribute = self._attributes.get(name)
        if attribute is not None and attribute.type == onnx.AttributeProto.FLOATS:
            with np.errstate(invalid="ignore"):  # a signalling NaN; the forest refuses NaN where it matters
                return np.array(attribute.floats, dtype=np.float64)
        values = self.tensor(name if attribute is not None else f"{name}_as_tensor")
        if values is not None and values.dtype.kind != "f":
            raise LoweringError(f"{self.name}: '{name}' must be a tensor of floats, got {values.dtype}")
        if values is None:
            return None
        with np.errstate(invalid="ignore"):
            return values.astype(np.float64)


@dataclass(frozen=True)
class GraphInput:
    """An input of a graph: its element type (as in ``onnx.TensorProto``), and its number of columns where fixed."""

    name: str
    elem_type: int
    width: int | None


class ReadableGraph:
    """The main graph of a model by names.

    Raises LoweringError if two nodes compute one name, or a node is of a domain that is not ONNX's own.
    """

    def __init__(self, model: ModelProto) -> None:
        self.nodes: Sequence[NodeProto] = list(model.graph.node)
        self.outputs = frozenset(value.name for value in model.graph.output)
        self._tensors: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self._inputs = {value.name: value for value in model.graph.input if value.name not in self._tensors}
        self._producers: dict[str, NodeProto] = {}
        self._consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            if node.domain not in _DOMAINS:
                raise LoweringError(f"{node_name(node)} is of the domain '{node.domain}', which no tree reader knows")
            for name in node.output:
                if name and (name in self._producers or name in self._inputs or name in self._tensors):
                    raise LoweringError(f"{node_name(node)}: '{name}' is computed twice")
                self._producers[name] = node
            for name in dict.fromkeys(node.input):
                self._consumers.setdefault(name, []).append(node)
            if node.op_type == "Constant" and len(node.output) == 1:
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self._tensors[node.output[0]] = attribute.t

    def producer(self, name: str) -> NodeProto | None:
        """The node that computes `name`, or None."""
        return self._producers.get(name)

    def consumers(self, name: str) -> Sequence[NodeProto]:
        """The nodes that take `name`."""
        return self._consumers.get(name, ())

    def constant(self, name: str) -> NDArray[Any] | None:
        """The values of the constant `name`; None if it is none."""
        tensor = self._tensors.get(name)
        return None if tensor is None else tensor_array(tensor, f"constant '{name}'")

    def the_input(self) -> GraphInput:
        """The one input of the model."""
        if len(self._inputs) != 1:
            raise LoweringError(f"the model must have one input, the features; got {sorted(self._inputs) or 'none'}")
        return self.graph_input(next(iter(self._inputs)))

    def graph_input(self, name: str) -> GraphInput:
        """The input `name`. Raises KeyError if there is none."""
        tensor = self._inputs[name].type.tensor_type
        dims = tensor.shape.dim
        width = int(dims[-1].dim_value) if len(dims) == 2 and dims[-1].HasField("dim_value") else 0
        return GraphInput(name, int(tensor.elem_type), width if width > 0 else None)

    def casts_before(self, name: str) -> tuple[list[NodeProto], GraphInput]:
        """The casts on the way from the input to `name`. Raises LoweringError if anything else is on it."""
        casts: list[NodeProto] = []
        while (node := self.producer(name)) is not None:
            if node.op_type not in ("Cast", "Identity") or len(node.input) != 1 or len(casts) > len(self.nodes):
                raise LoweringError(
                    f"{node_name(node)} stands between the features and the trees, where only casts may; convert the "
                    "bare tree model and apply other steps to the data beforehand"
                )
            casts.insert(0, node)
            name = node.input[0]
        if name not in self._inputs:
            raise LoweringError(f"'{name}', of which the trees ask features, is no input of the model")
        return casts, self.graph_input(name)

    def refuse_others(self, known: Collection[int], allowed: Collection[str]) -> None:
        """Raise LoweringError if a node is neither in `known` (by ``id``) nor of an operator in `allowed`.

        Multiplying by 1, which onnxmltools appends to LightGBM's classifiers, changes nothing and is allowed.
        """
        for node in self.nodes:
            if id(node) not in known and node.op_type not in allowed and not self._multiplies_by_one(node):
                raise LoweringError(f"{node_name(node)} may change the trees' scores; export the bare tree model")

    def _multiplies_by_one(self, node: NodeProto) -> bool:
        factors = [self.constant(name) for name in node.input] if node.op_type == "Mul" else []
        return any(factor is not None and factor.size == 1 and (factor == 1).all() for factor in factors)


def precision_of(source: GraphInput, casts: Sequence[NodeProto], *types: int) -> Precision:
    """What features are rounded to on the way through `casts`, and through tensors of further element `types`.

    Raises LoweringError if they are anything but floats there; integers at the input are taken as floats.
    """
    import onnx

    element = onnx.TensorProto.DataType
    integers = {element.Value("INT32"), element.Value("INT64")}
    if source.elem_type not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, *integers}:
        raise LoweringError(f"input '{source.name}' must be a tensor of float, double, int32 or int64")
    passed = [source.elem_type, *types]
    for cast in casts:
        if cast.op_type == "Cast":
            passed.append(Attributes(cast).integer("to", 0))
            if passed[-1] not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
                raise LoweringError(f"{node_name(cast)} casts features to other than float or double")
    return "float64" if onnx.TensorProto.FLOAT not in passed and onnx.TensorProto.DOUBLE in passed else "float32"


def readable_graph(model: Any) -> ReadableGraph:
    """The graph of `model`. Raises TypeError if it is no ``onnx.ModelProto``."""
    import onnx

    if not isinstance(model, onnx.ModelProto):
        raise TypeError(f"model must be an onnx.ModelProto (onnx.load reads one), got {type(model).__name__}")
    return ReadableGraph(model)


def width_of(source: GraphInput, n_features: int | None) -> int:
    """The number of features, from the graph's input or as given. Raises LoweringError if unknown or contradicted."""
    if source.width is None and n_features is None:
        raise LoweringError(f"input '{source.name}' has no fixed number of columns; pass n_features")
    if None not in (source.width, n_features) and source.width != n_features:
        raise LoweringError(f"input '{source.name}' has {source.width} columns, got n_features={n_features}")
    width = n_features if source.width is None else source.width
    assert width is not None
    if not 0 < width <= _MAX_FEATURES:
        raise LoweringError(f"input '{source.name}' must have 1 to {_MAX_FEATURES} columns, got {width}")
    return width

"""A float ONNX graph, cleaned, becomes an integer program: one walk over its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fhelearn.exceptions import LoweringError, QuantizationError, UnsupportedOperatorError
from fhelearn.frontends.onnx.network import Probe, QuantizedNetwork, TensorDecoder, TensorEncoder, flat
from fhelearn.frontends.onnx.quantizer import Plan, Quantizer, ReplanError
from fhelearn.frontends.onnx.registry import ANY_REMEDY, OPERATORS, REMEDIES, GraphNode
from fhelearn.frontends.onnx.settings import Settings
from fhelearn.frontends.onnx.values import Encrypted, Tensor, kind_of
from fhelearn.ir import Program
from fhelearn.onnx.forward import node_function
from fhelearn.passes import (
    canonicalize_linear,
    eliminate_dead_nodes,
    expand_products,
    fold_constant_lookups,
    share_equal_lookups,
)
from fhelearn.quantization.grids import observe
from fhelearn.quantization.uniform import MIN_BITS, ColumnRange, UniformDecoder, UniformEncoder
from fhelearn.typing import FloatArray

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

_MOST_IMPORTS = 6
"""Each import teaches the next what the whole program showed: inputs' scales, and widths that settle quickly."""

_LEVELLED = frozenset(
    ("Add", "BatchNormalization", "CenterCropPad", "Concat", "DepthToSpace", "Div", "Expand", "Flatten",
     "Gather", "GatherElements", "GatherND", "Identity", "Mul", "Neg", "Pad", "Reshape", "ReverseSequence",
     "ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub", "Sum", "Tile", "Transpose",
     "Trilu", "Unsqueeze")
)  # fmt: skip
"""Operators behind which an accumulator may still reach an output without a lookup."""


def import_network(body: ModelProto, samples: Sequence[FloatArray], settings: Settings) -> QuantizedNetwork:
    """Quantize a graph after training, from calibration data.

    Parameters
    ----------
    body : onnx.ModelProto
        As `fhelearn.onnx.cleanup.clean` leaves it: static shapes with a batch of 1, constants folded.
    samples : sequence of float64 arrays, shape (n, *row), n >= 1
        Calibration rows, per input of the graph, finite. A row has the input's shape, without its first axis if that is
        of extent 1.
    settings : Settings

    Raises
    ------
    UnsupportedOperatorError
        Naming every node that cannot be encrypted, and why.
    QuantizationError
        If the data or the settings do not fit the graph.
    """
    plan = Plan()
    for _ in range(_MOST_IMPORTS + 1 + len(body.graph.input)):
        walk = _Walk(body, settings, plan)
        try:
            outputs = walk.run(samples)
        except ReplanError as error:
            plan = error.plan
            continue
        raw = walk.z.builder.build(*(node for node, _ in outputs))
        whole = walk, raw, [decoder for _, decoder in outputs]
        better = walk.z.next_plan(raw)
        if better is None:
            break
        plan = better
    walk, raw, decoders = whole  # of the last import that came to its end: others are narrower, not more right
    return walk.network(raw, decoders)


@dataclass
class _Walk:
    """One import."""

    body: ModelProto
    settings: Settings
    plan: Plan
    z: Quantizer = field(init=False)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    encoders: list[TensorEncoder] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    types: dict[str, np.dtype[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.z = Quantizer(self.settings, self.plan)
        self.opset = next(o.version for o in self.body.opset_import if o.domain in ("", "ai.onnx"))

    def run(self, samples: Sequence[FloatArray]) -> list[tuple[int, TensorDecoder]]:
        import onnx

        graph = self.body.graph
        for tensor in graph.initializer:
            value = onnx.numpy_helper.to_array(tensor)
            self.tensors[tensor.name], self.types[tensor.name] = value, value.dtype
        for declared in (*graph.input, *graph.value_info, *graph.output):
            self.types[declared.name] = onnx.helper.tensor_dtype_to_np_dtype(declared.type.tensor_type.elem_type)
        for info, x in zip(graph.input, samples, strict=True):
            self.tensors[info.name] = self._input(info, x)
        levelled = _reaches_outputs_only(graph)
        for proto in graph.node:
            self._node(proto, self.plan.narrow or not all(name in levelled for name in proto.output))
        if self.failures:
            raise UnsupportedOperatorError("\n".join(self.failures))
        return [self._output(info.name) for info in graph.output]

    def _input(self, info: ValueInfoProto, x: FloatArray) -> Encrypted:
        import onnx

        self.z.name = info.name
        shape = tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
        if 0 in shape:
            raise QuantizationError(f"input {info.name!r} of shape {shape} has no elements; leave it out of the graph")
        x = np.asarray(x, dtype=np.float64).reshape(len(x), *shape)
        kind = kind_of(onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
        bits = max(self.settings.n_bits.model_inputs, MIN_BITS)
        by_feature = len(shape) == 2 and shape[0] == 1 and info.name not in self.plan.uniform_inputs
        seen = x if kind != "b" else np.concatenate([np.zeros_like(x[:1]), np.ones_like(x[:1])])
        if by_feature:
            margin = self.settings.range_margin if kind != "b" else 0.0
            span = ColumnRange.of(seen.reshape(len(seen), -1), margin=margin)
            columns = _table_encoder(span, bits, whole=kind != "f")
        else:
            grid = observe(seen, bits, observer=self.settings.observer)
            parts = (flat(a, shape) for a in (grid.scale, grid.offset, grid.lo, grid.hi))
            columns = UniformEncoder(*parts)
        encoder = TensorEncoder(info.name, shape[1:] if shape[:1] == (1,) else shape, shape, columns)
        self.encoders.append(encoder)
        node = self.z.input(encoder.quantize(x), columns.lo.reshape(shape), columns.hi.reshape(shape))
        whole = np.zeros((1,) * len(shape))
        plain = Encrypted(node, shape, 1.0 + whole, whole, kind, source=info.name)
        scale, offset = columns.scale.reshape(shape), columns.offset.reshape(shape)
        return replace(plain, scale=scale, offset=offset).moved(node, shape, lambda a: a)

    def _node(self, proto: NodeProto, feeds_lookup: bool) -> None:
        if any(name and name not in self.tensors for name in proto.input):
            return  # it depends on a node that failed
        self.z.name = proto.name
        inputs = [self.tensors[name] if name else None for name in proto.input]
        types = [self.types.get(name) for name in proto.input]
        node = GraphNode(proto, proto.name, inputs, _attributes(proto), self.opset, feeds_lookup, types)
        try:
            results = self._results(node)
        except UnsupportedOperatorError as error:
            self.failures.append(str(error))
            return
        self.tensors |= {name: result for name, result in zip(proto.output, results, strict=False) if name}

    def _results(self, node: GraphNode) -> Sequence[Tensor]:
        if not any(isinstance(tensor, Encrypted) for tensor in node.inputs):
            return node_function(node.proto, node.opset)(*node.inputs)
        handler = OPERATORS.get(node.op_type) if node.proto.domain in ("", "ai.onnx") else None
        if handler is None:
            raise node.unsupported(
                f"the operator{f' of domain {node.proto.domain!r}' if node.proto.domain else ''} cannot be encrypted",
                ANY_REMEDY if node.proto.domain not in ("", "ai.onnx") else REMEDIES.get(node.op_type, ANY_REMEDY),
            )
        result = handler(self.z, node)
        return result if isinstance(result, list | tuple) else (result,)

    def _output(self, name: str) -> tuple[int, TensorDecoder]:
        self.z.name = name
        x = self.tensors[name]
        if not isinstance(x, Encrypted):
            value = np.asarray(x, dtype=np.float64)
            x = Encrypted(self.z.constant(np.zeros(value.shape, np.int64)), value.shape, np.ones_like(value), value)
        if not x.affine:
            x = self.z.lookup(x, self.settings.n_bits.model_outputs)
        sign = np.asarray(np.sign(x.scale), dtype=np.int64)
        node = x.node if (sign == 1).all() else self.z.emit("multiply_constant", x.node, value=sign)
        scale = np.where(sign == 0, 1.0, np.abs(x.scale))
        decoder = UniformDecoder(flat(scale, x.shape), flat(x.offset, x.shape))
        batched = all(e.shape[:1] == (1,) for e in self.encoders) and x.shape[:1] == (1,)
        return node, TensorDecoder(name, x.shape[1:] if batched else x.shape, decoder)

    def network(self, raw: Program, decoders: list[TensorDecoder]) -> QuantizedNetwork:
        probes = tuple(
            Probe(name, x.node, x.scale, x.offset)
            for name, x in self.tensors.items()
            if isinstance(x, Encrypted) and x.affine
        )
        weight_bits = {raw.nodes[node].name: bits for node, bits in self.z.weight_bits.items()}
        return QuantizedNetwork(tuple(self.encoders), normal(raw), tuple(decoders), weight_bits, raw, probes)


def _table_encoder(span: ColumnRange, bits: int, *, whole: bool) -> UniformEncoder:
    """One scale per feature; 1 where the features are integers by type, so that no code stands for half of one."""
    low, high = np.floor(span.low), np.ceil(span.high)
    if not whole or (high - low).max() >= 2**bits:
        return UniformEncoder.from_range(span, bits)
    centre = np.floor((low + high + 1) / 2)
    return UniformEncoder(np.ones_like(low), centre, *(end.astype(np.int64) for end in (low - centre, high - centre)))


def normal(program: Program) -> Program:
    """The program as it is run: no products, no equal or constant lookups, no dead nodes, independent sums.

    So it is the very program that is encrypted, and rows that overflow wrap alike. Sums of correlated values that are
    too large to be made independent cannot be encrypted; they stay as they are.
    """
    expanded = expand_products(eliminate_dead_nodes(program))
    shared = share_equal_lookups(fold_constant_lookups(expanded))
    try:
        return eliminate_dead_nodes(canonicalize_linear(shared))
    except LoweringError:
        return eliminate_dead_nodes(shared)


def _attributes(proto: NodeProto) -> dict[str, Any]:
    import onnx

    values = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
    return {name: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for name, v in values.items()}


def _reaches_outputs_only(graph: GraphProto) -> frozenset[str]:
    """Tensors that reach the graph's outputs without passing an operator that looks up."""
    consumers: dict[str, list[NodeProto]] = {}
    for proto in graph.node:
        for name in proto.input:
            consumers.setdefault(name, []).append(proto)
    found: set[str] = set()
    outputs = {info.name for info in graph.output}
    for proto in reversed(graph.node):
        for name in proto.output:
            users = consumers.get(name, [])
            onwards = all(u.op_type in _LEVELLED and all(o in found for o in u.output) for u in users)
            if onwards and (users or name in outputs):
                found.add(name)
    return frozenset(found)

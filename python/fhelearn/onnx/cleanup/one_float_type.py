"""One float type for all nodes that will be encrypted."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from fhelearn.onnx.cleanup.cut_front import front_nodes
from fhelearn.onnx.cleanup.cut_tail import tail_nodes
from fhelearn.onnx.cleanup.graphs import bypass, free_name, is_constant, is_float, label, unique_name

if TYPE_CHECKING:
    import onnx_ir as ir


def one_float_type(model: ir.Model, *, cut: bool = True) -> list[str]:
    """Remove `Cast` between float types by computing in the widest of them.

    ``Cast(float32 -> float64)(x) -> x`` and back. Equal up to the rounding that the removed `Cast` made, which has no
    counterpart in an encrypted program. Inputs and outputs of the graph keep their types: a `Cast` is put next to them
    where needed, for the client to run. Nothing changes where the result would break an operator's type rules.

    Parameters
    ----------
    model : onnx_ir.Model
        With inferred types. Changed in place.
    cut : bool, default=True
        Whether the nodes that `cut_front` and `cut_tail` would move are left as they are.

    Returns
    -------
    list of str
        One line per removed `Cast`.
    """
    import onnx
    import onnx_ir as ir

    nodes = list(model.graph)
    moving = {**front_nodes(model), **tail_nodes(model)} if cut else {}
    chosen = {index for index, node in enumerate(nodes) if node not in moving}
    lines = [f"{label(node)} between float types is gone" for node in _casts({nodes[index] for index in chosen})]
    if not lines:
        return []
    trial = model.clone()
    _unify(trial, [node for index, node in enumerate(trial.graph) if index in chosen])
    try:
        onnx.checker.check_model(ir.serde.serialize_model(trial), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return []
    _unify(model, [nodes[index] for index in sorted(chosen)])
    return lines


def _casts(nodes: set[ir.Node]) -> list[ir.Node]:
    """The casts between two float types whose both sides belong to `nodes`."""
    found = []
    for node in nodes:
        source, out = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.op_type != "Cast" or source is None or not (is_float(source) and is_float(out)):
            continue
        read = not out.is_graph_output() and any(reader in nodes for reader in out.consumers())
        if source.dtype != out.dtype and source.producer() in nodes and read:
            found.append(node)
    return sorted(found, key=lambda node: node.name or "")


def _unify(model: ir.Model, nodes: list[ir.Node]) -> None:
    import onnx_ir as ir

    made = {out for node in nodes for out in node.outputs if is_float(out)}
    read = {value for node in nodes for value in node.inputs if value is not None and is_float(value)}
    wide = any(value.dtype == ir.DataType.DOUBLE for value in made | read)
    widest = ir.DataType.DOUBLE if wide else ir.DataType.FLOAT
    for value in [out for node in nodes for out in node.outputs if out in made and out.dtype != widest]:
        _give_back(model, value, set(nodes))
    _widen_operands(model, nodes, made, widest)
    for value in made:
        # Copies of a graph share the objects that are types; setting `dtype` would change the type in all of them.
        value.type = ir.TensorType(widest)
    for node in nodes:
        source = node.inputs[0] if node.op_type == "Cast" else None
        if source is None or node.outputs[0] not in made:
            continue
        if not (is_float(source) and bypass(node, source)):
            node.attributes["to"] = ir.AttrInt64("to", widest.value)


def _give_back(model: ir.Model, value: ir.Value, nodes: Collection[ir.Node]) -> None:
    """Keep the type of `value` for its readers outside of `nodes`."""
    readers = [(node, index) for node, index in value.uses() if node not in nodes]
    maker, dtype = value.producer(), value.dtype
    if maker is None or dtype is None or not (readers or value.is_graph_output()):
        return
    narrow = _cast(model, value, dtype)
    new = narrow.producer()
    if new is not None:
        model.graph.insert_after(maker, new)
    for node, index in readers:
        node.replace_input_with(index, narrow)
    if value.is_graph_output():
        for index, output in enumerate(model.graph.outputs):
            if output is value:
                model.graph.outputs[index] = narrow
        value.name, narrow.name = narrow.name, value.name


def _widen_operands(model: ir.Model, nodes: list[ir.Node], made: set[ir.Value], widest: ir.DataType) -> None:
    widened: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if value is None or value in made or not is_float(value) or value.dtype == widest:
                continue
            if not _takes(model, node, index, widest):
                continue
            if value not in widened:
                widened[value] = _widened(model, value, widest)
            node.replace_input_with(index, widened[value])


def _widened(model: ir.Model, value: ir.Value, widest: ir.DataType) -> ir.Value:
    import onnx_ir as ir

    if is_constant(value) and value.const_value is not None:
        name = unique_name(model.graph, f"{value.name}_wide")
        array = value.const_value.numpy().astype(widest.numpy())
        wide = ir.Value(
            name=name, type=ir.TensorType(widest), shape=value.shape, const_value=ir.tensor(array, name=name)
        )
        model.graph.register_initializer(wide)
        return wide
    wide = _cast(model, value, widest)
    maker, new = value.producer(), wide.producer()
    if new is not None and maker is not None:
        model.graph.insert_after(maker, new)
    elif new is not None:
        model.graph.insert_before(model.graph[0], new)
    return wide


def _cast(model: ir.Model, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    import onnx_ir as ir

    name = unique_name(model.graph, f"{value.name}_{dtype.name.lower()}")
    node_name = free_name(f"Cast_{name}", {node.name for node in model.graph})
    out = ir.node("Cast", [value], {"to": dtype.value}, name=node_name).outputs[0]
    out.name, out.dtype, out.shape = name, dtype, value.shape
    return out


def _takes(model: ir.Model, node: ir.Node, index: int, dtype: ir.DataType) -> bool:
    """Whether the operator's definition allows `dtype` for that input: scales of `Resize` are always float32."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, model.graph.opset_imports[node.domain], node.domain)
    except (KeyError, onnx.defs.SchemaError):
        return True
    formal = schema.inputs[min(index, len(schema.inputs) - 1)]
    return f"tensor({dtype.name.lower()})" in formal.types

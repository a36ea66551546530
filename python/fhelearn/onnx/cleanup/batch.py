"""Fix the number of rows of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fhelearn.onnx.cleanup.graphs import static_shape, unique_name

if TYPE_CHECKING:
    import onnx_ir as ir


def fix_batch(model: ir.Model, batch_size: int = 1) -> None:
    """Give axis 0 of every input a number, where it has none.

    A `Squeeze` without axes gets those that have length 1 for any number of rows: it would squeeze a single row away.

    Parameters
    ----------
    model : onnx_ir.Model
        Changed in place; shapes are inferred anew by `infer_shapes`.
    batch_size : int, default=1
        Length of axis 0 of the inputs where it is symbolic or unknown.

    Raises
    ------
    ModelFormatError
        If an input has no known rank, or another axis of it no known length.
    """
    from onnx_ir.passes.common import ShapeInferencePass

    if any(node.op_type == "Squeeze" for node in model.graph):
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        for node in list(model.graph):
            if node.op_type == "Squeeze" and (len(node.inputs) < 2 or node.inputs[1] is None):
                _give_axes(model, node)
    for value in model.graph.inputs:
        _fix_input(value, batch_size)
    for node in model.graph:
        for value in node.outputs:
            # An annotation of the exporter may mean another number of rows.
            if static_shape(value) is None:
                value.shape = None


def _give_axes(model: ir.Model, node: ir.Node) -> None:
    import onnx_ir as ir

    source = node.inputs[0]
    # Of a static shape, no axis is the rows: the operator means what it says.
    if source is None or source.shape is None or static_shape(source) is not None:
        return
    axes = np.array([axis for axis, dim in enumerate(source.shape) if dim == 1], dtype=np.int64)
    name = unique_name(model.graph, f"{node.outputs[0].name}_axes")
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape(axes.shape),
        const_value=ir.tensor(axes, name=name),
    )
    model.graph.register_initializer(value)
    node.resize_inputs(2)
    node.replace_input_with(1, value)


def _fix_input(value: ir.Value, batch_size: int) -> None:
    import onnx_ir as ir

    from fhelearn.exceptions import ModelFormatError

    if value.shape is None:
        raise ModelFormatError(
            f"input {value.name!r} must be a tensor of known rank; declare its shape when exporting the model"
        )
    dims = [dim if isinstance(dim, int) else batch_size if axis == 0 else None for axis, dim in enumerate(value.shape)]
    if None in dims:
        axis = dims.index(None)
        raise ModelFormatError(
            f"input {value.name!r}: the length of axis {axis} must be a number, got {value.shape[axis]}; only axis 0 "
            "(the rows) may be left open: export the model with fixed lengths on all other axes"
        )
    value.shape = ir.Shape(dims)

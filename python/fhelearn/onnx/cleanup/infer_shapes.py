"""Annotate every value with its type and static shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhelearn.onnx.cleanup.graphs import static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

# onnx has no inference for these; each keeps its input's shape (ONNX-ML operator specification).
_SHAPE_KEEPING = ("Imputer", "Normalizer", "Scaler")


def infer_shapes(model: ir.Model) -> list[str]:
    """Write the inferred type and shape of every value that has none, or one that was not static.

    The graph's meaning does not change. Annotations that the exporter made with a symbolic batch are replaced; those of
    operators that onnx cannot infer stay.

    Parameters
    ----------
    model : onnx_ir.Model
        Its inputs have static shapes. Changed in place.

    Returns
    -------
    list of str
        One line if a shape is new, else none.
    """
    values = [value for node in model.graph for value in node.outputs]
    old = {value: value.shape for value in values}
    for value in values:
        value.shape = None
    _infer(model)
    for value in values:
        if value.shape is None:
            value.shape = old[value]
    changed = [value for value in values if value.shape != old[value]]
    return [f"{len(changed)} values got static shapes"] if changed else []


def _infer(model: ir.Model) -> None:
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    # Not strict: one node that cannot be inferred would leave all others without a shape.
    infer = ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)
    infer(model)
    for node in model.graph:
        if node.domain == "ai.onnx.ml" and node.op_type in _SHAPE_KEEPING:
            source, out = node.inputs[0], node.outputs[0]
            if source is not None and out.shape is None and static_shape(source) is not None:
                out.shape = source.shape
                if node.op_type != "Imputer":
                    out.dtype = ir.DataType.FLOAT
                elif source.dtype is not None:
                    out.dtype = source.dtype
                infer(model)

"""Padding as an attribute of the convolution or pooling behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fhelearn.onnx.cleanup.graphs import constant, label, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

_READERS = ("AveragePool", "Conv", "MaxPool")
_NEVER_NEGATIVE = ("Abs", "Relu", "Sigmoid", "Softmax", "Softplus")


def fuse_pad_into_conv(model: ir.Model) -> list[str]:
    """Fuse a constant `Pad` of spatial axes into the pads of the node that reads it.

    ``Op(Pad(x, p, value), pads=q) -> Op(x, pads=p + q)``, exactly equal, for

    - `Conv` and value 0;
    - `AveragePool` and value 0, without `ceil_mode`, if it counts its own padding or has none (the fused one counts);
    - `MaxPool`, without `ceil_mode`, and value -inf; or value 0 where `x` is never negative and ``q = 0``; in both
      cases only if every window then sees an element of `x`.

    Parameters
    ----------
    model : onnx_ir.Model
        With static shapes. Changed in place.

    Returns
    -------
    list of str
        One line per `Pad` and reader.
    """
    from onnxscript.rewriter import RewriteRule, RewriteRuleSet

    lines: list[str] = []

    def replacement(op: Any, x: ir.Value, padded: ir.Value, out: ir.Value, **_: Any) -> Any:
        pad, node = padded.producer(), out.producer()
        if pad is None or node is None:
            return None
        lines.append(f"{label(pad)} became padding of {label(node)}")
        return _fused(op, x, pad, node)

    # The padding may have other readers: it stays for them, and is removed as a dead node otherwise.
    rules = [RewriteRule(_pattern(op_type), replacement, _fits, remove_nodes=False) for op_type in _READERS]
    rule_set = RewriteRuleSet(rules)
    while any(map(_is_fusible, model.graph)):
        rule_set.apply_to_model(model)
    return lines


def _is_fusible(node: ir.Node) -> bool:
    """Whether a rule will match: without a match, applying them would still remove dead nodes."""
    padded = node.inputs[0] if node.op_type in _READERS else None
    pad = None if padded is None else padded.producer()
    if padded is None or pad is None or pad.op_type != "Pad" or pad.inputs[0] is None:
        return False
    return _fits(None, pad.inputs[0], padded, node.outputs[0])


def _pattern(op_type: str) -> Any:
    def pattern(op: Any, x: Any) -> Any:
        padded = op.Pad(x, _allow_other_inputs=True, _outputs=["padded"])
        return getattr(op, op_type)(padded, _allow_other_inputs=True, _outputs=["out"])

    return pattern


def _fits(_: Any, x: ir.Value, padded: ir.Value, out: ir.Value, **__: Any) -> bool:
    pad, node = padded.producer(), out.producer()
    if pad is None or node is None or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return False
    pads, value = _pads(pad), _padding_value(pad)
    if pads is None or value is None or len(node.outputs) != 1:
        return False
    own = _own_pads(node, len(pads[0]))
    if node.op_type == "Conv":
        return value == 0
    if node.attributes.get_int("ceil_mode", 0):
        return False
    if node.op_type == "AveragePool":
        return value == 0 and (not any(own) or bool(node.attributes.get_int("count_include_pad", 0)))
    producer = x.producer()
    never_negative = producer is not None and producer.op_type in _NEVER_NEGATIVE
    if not (value == -np.inf or (value == 0 and never_negative and not any(own))):
        return False
    dilations = node.attributes.get_ints("dilations", [1] * len(pads[0]))
    kernel = node.attributes["kernel_shape"].as_ints()
    # A dilated window may see padding only, even if it reaches into `x`.
    total = np.add([*pads[0], *pads[1]], own)
    return all(step == 1 for step in dilations) and bool(np.all(total < np.tile(kernel, 2)))


def _padding_value(pad: ir.Node) -> float | None:
    """The constant that is padded with, None if it is not one."""
    if pad.attributes.get_string("mode", "constant") != "constant":
        return None
    if len(pad.inputs) < 3 or pad.inputs[2] is None:
        return 0.0
    value = constant(pad.inputs[2])
    return None if value is None else float(value.item())


def _pads(pad: ir.Node) -> tuple[list[int], list[int]] | None:
    """Spatial pads before and after; None if unknown, negative, or if batch or channels are padded."""
    shape, pads = static_shape(pad.inputs[0]), constant(pad.inputs[1])
    axes = constant(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] is not None else None
    if shape is None or pads is None or (len(pad.inputs) > 3 and pad.inputs[3] is not None and axes is None):
        return None
    both = np.zeros((2, len(shape)), dtype=np.int64)
    both[:, np.arange(len(shape)) if axes is None else axes] = pads.reshape(2, -1)
    if len(shape) < 3 or both[:, :2].any() or (both < 0).any():
        return None
    return both[0, 2:].tolist(), both[1, 2:].tolist()


def _own_pads(node: ir.Node, rank: int) -> list[int]:
    return list(node.attributes.get_ints("pads", [0] * (2 * rank)))


def _fused(op: Any, x: ir.Value, pad: ir.Node, node: ir.Node) -> Any:
    pads = _pads(pad)
    if pads is None:
        return None
    attributes: dict[str, Any] = dict(node.attributes)
    attributes["pads"] = [int(p) for p in np.add([*pads[0], *pads[1]], _own_pads(node, len(pads[0])))]
    if node.op_type == "AveragePool":
        attributes["count_include_pad"] = 1
    return getattr(op, node.op_type)(x, *node.inputs[1:], _name=node.name, **attributes)

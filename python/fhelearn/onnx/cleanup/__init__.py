"""Clean-up of float ONNX graphs: what encryption cannot run is folded away, or moved to the client.

Named passes, one effect each, in the order of `PASSES`; `clean` runs them until none changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fhelearn.onnx.cleanup.batch import fix_batch
from fhelearn.onnx.cleanup.compose_linear_maps import compose_linear_maps
from fhelearn.onnx.cleanup.cut_front import cut_front
from fhelearn.onnx.cleanup.cut_tail import cut_tail
from fhelearn.onnx.cleanup.distances_as_linear_maps import distances_as_linear_maps
from fhelearn.onnx.cleanup.embed_as_one_hot import embed_as_one_hot
from fhelearn.onnx.cleanup.fold_batch_normalization import fold_batch_normalization
from fhelearn.onnx.cleanup.fold_constants import fold_constants
from fhelearn.onnx.cleanup.fuse_matmul_add import fuse_matmul_add
from fhelearn.onnx.cleanup.fuse_pad_into_conv import fuse_pad_into_conv
from fhelearn.onnx.cleanup.graphs import Parts, Pass, label, name_nodes, on_body, static_shape
from fhelearn.onnx.cleanup.infer_shapes import infer_shapes
from fhelearn.onnx.cleanup.one_float_type import one_float_type
from fhelearn.onnx.cleanup.remove_dead_nodes import remove_dead_nodes
from fhelearn.onnx.cleanup.remove_identities import remove_identities

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["PASSES", "CleanModel", "Parts", "Pass", "Step", "clean"]

_SIMPLIFY = (
    on_body("infer_shapes", infer_shapes),
    on_body("fold_constants", fold_constants),
    on_body("remove_identities", remove_identities),
    on_body("remove_dead_nodes", remove_dead_nodes),
    on_body("fuse_matmul_add", fuse_matmul_add),
    on_body("fuse_pad_into_conv", fuse_pad_into_conv),
    on_body("fold_batch_normalization", fold_batch_normalization),
    on_body("compose_linear_maps", compose_linear_maps),
)
_CUT = (
    on_body("embed_as_one_hot", embed_as_one_hot),
    on_body("distances_as_linear_maps", distances_as_linear_maps),
    on_body("remove_dead_nodes", remove_dead_nodes),
    on_body("one_float_type", one_float_type),
    Pass("cut_tail", cut_tail),
    Pass("cut_front", cut_front),
)
_KEEP = (on_body("one_float_type", lambda model: one_float_type(model, cut=False)),)

PASSES: tuple[Pass, ...] = (*_SIMPLIFY, *_CUT)
"""Every pass, in order: those that simplify (run until none changes anything), then those that cut."""


@dataclass(frozen=True)
class Step:
    """One line of the report.

    Attributes
    ----------
    name : str
        The pass.
    detail : str
        What it did, for instance "Softmax 'probabilities' runs on the client after decryption".
    """

    name: str
    detail: str


@dataclass(frozen=True, eq=False)
class CleanModel:
    """A model in up to three parts, to be run one after the other; equal names are equal values.

    Attributes
    ----------
    before : onnx.ModelProto or None
        The client's clear pre-processing: takes the model's inputs, gives the body's inputs. None if there is nothing
        to do: the body then takes the model's inputs.
    body : onnx.ModelProto
        What will be encrypted.
    after : onnx.ModelProto or None
        The client's clear post-processing: takes the body's outputs, gives the model's outputs. None if there is
        nothing to do: the body then gives the model's outputs.
    steps : tuple of Step
        What was done, in order.
    """

    before: onnx.ModelProto | None
    body: onnx.ModelProto
    after: onnx.ModelProto | None
    steps: tuple[Step, ...]


def clean(model: onnx.ModelProto, *, cut: bool = True) -> CleanModel:
    """Simplify a float graph, and move to the client what can run on clear values.

    ``after o body o before == model`` on every input, up to the float rounding of folded weights and of casts between
    float types; nodes that only move give exactly the same. A value that is an input of the body and of the model (or
    an output of both) goes through `before` (`after`) unchanged, under its name. An input that nothing reads is one of
    `before`, or of the body if there is no `before`.

    Parameters
    ----------
    model : onnx.ModelProto
        Valid, of opset 13 or newer. Not changed. Dimension 0 of an input becomes 1 unless it is a number.
    cut : bool, default=True
        Whether leading and trailing nodes move to the client. Without, the body is the whole model.

    Returns
    -------
    CleanModel
        Its body has the opset of `model`; one static shape and type per value; no `Constant`, no node that depends on
        constants alone, no `Dropout`, no dead node, no initializer without reader; distinct names for all nodes. An
        `Identity` is left only between two names that callers know (an output that is an input, or equal to another
        output); a `Cast` between float types only next to an input or output that is not cut.

    Raises
    ------
    ModelFormatError
        If a shape of the body is not known before the data is; the message lists all such values.
    """
    parts = Parts(_loaded(model))
    steps: list[Step] = []
    _simplify(parts, steps)
    for each in _CUT if cut else _KEEP:
        _run(each, parts, steps)
    _simplify(parts, steps)
    _require_static(parts.body)
    before, body, after = (None if part is None else _stored(part) for part in (parts.before, parts.body, parts.after))
    if body is None:
        raise AssertionError("a model has a body")
    return CleanModel(before, body, after, tuple(steps))


def _loaded(model: onnx.ModelProto) -> ir.Model:
    """A private copy with static inputs, no functions, and named nodes."""
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, InlinePass, RemoveInitializersFromInputsPass

    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # onnx_ir keeps the tensors that it is given, and renames them with their values
    loaded = ir.serde.deserialize_model(copy)
    for prepare in (InlinePass(), RemoveInitializersFromInputsPass(), ClearMetadataAndDocStringPass()):
        prepare(loaded)
    fix_batch(loaded)
    name_nodes(loaded.graph)
    return loaded


def _run(each: Pass, parts: Parts, steps: list[Step]) -> bool:
    lines = each.run(parts)
    if lines:
        # What a pass makes has a name before the next one reports it.
        name_nodes(parts.body.graph)
    steps.extend(Step(each.name, line) for line in lines)
    return bool(lines)


def _simplify(parts: Parts, steps: list[Step]) -> None:
    # Every pass takes nodes away or makes values known, so this ends.
    changed = True
    while changed:
        changed = sum(_run(each, parts, steps) for each in _SIMPLIFY) > 0


def _require_static(model: ir.Model) -> None:
    from fhelearn.exceptions import ModelFormatError

    values = [(node, out) for node in model.graph for out in node.outputs if out.name]
    unknown = [
        f"{out.name!r} of {label(node)}" for node, out in values if static_shape(out) is None or out.dtype is None
    ]
    if unknown:
        raise ModelFormatError(
            f"the shapes of {', '.join(unknown)} are not known before the data is, or contradict others; encrypted "
            "programs need static shapes: export the model with fixed lengths and a symbolic axis 0 (the rows), "
            "without operators whose output size depends on values"
        )


def _stored(model: ir.Model) -> onnx.ModelProto:
    import onnx_ir as ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    infer_shapes(model)
    name_nodes(model.graph)
    ClearMetadataAndDocStringPass()(model)
    return ir.serde.serialize_model(model)

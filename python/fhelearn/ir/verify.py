"""Inference and verification: every invariant of a program, one message each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fhelearn.exceptions import ProgramError
from fhelearn.ir.cost import inference_work
from fhelearn.ir.interval import INT64_MAX, INT64_MIN, Bounds
from fhelearn.ir.op_spec import AttributeKind, OpSpec
from fhelearn.ir.ops import OPS
from fhelearn.ir.program import MAX_ELEMENTS, MAX_RANK, MAX_WORK, Node, Program, Value
from fhelearn.typing import Provenance

DECLARED_PROVENANCES = ("structural", "calibrated")


@dataclass(frozen=True)
class DeclaredBounds:
    """Bounds narrower than interval arithmetic proves, and why they may be believed.

    The value gets what these and the inferred bounds both allow; where that is all of the latter, it is proved.

    Parameters
    ----------
    lo, hi : int or array-like of int
        Broadcastable to the value's shape; every element must share some integer with its inferred bounds.
    provenance : {"structural", "calibrated"}
        See :class:`Value`.
    reason : str
        One line, not empty.
    """

    lo: Any
    hi: Any
    provenance: Provenance
    reason: str


def infer(
    where: str, op: str, operands: Sequence[Node], attributes: Mapping[str, Any], declared: DeclaredBounds | None
) -> tuple[Value, dict[str, Any]]:
    """Check a node and infer its value.

    Parameters
    ----------
    where : str
        How errors call the node.
    op, operands, attributes
        As in :class:`Node`.
    declared : DeclaredBounds or None
        Narrower bounds that a front end vouches for.

    Returns
    -------
    value : Value
    attributes : dict
        In canonical form and alphabetical order.

    Raises
    ------
    ProgramError
        Starting with `where`.
    """
    try:
        spec = _spec(op, len(operands))
        kept = _canonical(spec, attributes)
        values = [node.value for node in operands]
        shape = spec.shape(values, kept)
        elements = int(np.prod(shape, dtype=object))
        if elements > MAX_ELEMENTS:
            raise ProgramError(f"result of shape {shape} has {elements} elements per row; at most {MAX_ELEMENTS}")
        if len(shape) > MAX_RANK:
            raise ProgramError(f"result of shape {shape} has {len(shape)} axes; at most {MAX_RANK}")
        if inference_work(op, shape, values, kept) > MAX_WORK:
            raise ProgramError(f"result of shape {shape} needs too much work; at most {MAX_WORK} steps per node")
        bounds = spec.bounds(values, kept).compact()
        _check_width(bounds)  # also where less is declared: beyond 63 bits a value could come back into its bounds
        if declared is not None:
            return _declare(shape, bounds, declared), kept
        return Value(shape, bounds), kept
    except ProgramError as error:
        raise ProgramError(f"{where}: {error}") from None


def _spec(op: str, arity: int) -> OpSpec:
    if op not in OPS:
        raise ProgramError(f"unknown op {op!r}; known are {', '.join(sorted(OPS))}")
    least, most = OPS[op].arity
    if not least <= arity <= most:
        raise ProgramError(f"takes {least if least == most else f'{least} to {most}'} operands, got {arity}")
    return OPS[op]


def _canonical(spec: OpSpec, attributes: Mapping[str, Any]) -> dict[str, Any]:
    if set(attributes) != set(spec.attributes):
        raise ProgramError(f"attributes must be {sorted(spec.attributes)}, got {sorted(attributes)}")
    for name, kind in spec.attributes.items():
        if not _is_kind(attributes[name], kind):
            raise ProgramError(f"{name} must be {_KIND_WORDS[kind]}, got {type(attributes[name]).__name__}")
    kept = {name: attributes[name] for name in sorted(attributes)}
    if spec.name == "input":  # equal bounds are stored one way only: as two integers where uniform
        box = Bounds.of(kept["lo"], kept["hi"]).compact()
        ends = box.to_int64() if box.fits_int64 else None
        if ends is None:
            _check_width(box)
        elif box.lo.ndim == 0:
            kept["lo"], kept["hi"] = int(box.lo), int(box.hi)
        else:
            kept["lo"], kept["hi"] = ends
            kept["lo"].setflags(write=False)
            kept["hi"].setflags(write=False)
    return kept


_KIND_WORDS: dict[AttributeKind, str] = {
    "int": "a 64-bit integer",
    "bool": "a bool",
    "str": "a string",
    "ints": "a sequence of 64-bit integers",
    "array": "an integer array",
    "bound": "an integer or an integer array",
}


def _is_int64(value: Any) -> bool:
    return type(value) is int and INT64_MIN <= value <= INT64_MAX


def _is_kind(value: Any, kind: AttributeKind) -> bool:
    array = isinstance(value, np.ndarray) and value.dtype == np.int64
    if kind == "ints":
        return isinstance(value, tuple) and all(_is_int64(v) for v in value)
    checks = {
        "int": _is_int64(value),
        "bool": type(value) is bool,
        "str": type(value) is str,
        "array": array,
        "bound": array or type(value) is int,
    }
    return checks[kind]


def check_text(what: str, text: Any) -> None:
    """Raise ProgramError unless `text` is one line of printable characters, as the text form and the file need."""
    if not isinstance(text, str) or not text.isprintable():
        raise ProgramError(f"{what} must be a string of printable characters on one line, got {text!r}")


def _check_width(bounds: Bounds) -> None:
    if not bounds.fits_int64:
        raise ProgramError(
            f"bounds [{bounds.minimum}, {bounds.maximum}] are beyond 63 bits; use fewer bits for inputs or weights"
        )


def _declare(shape: tuple[int, ...], inferred: Bounds, declared: DeclaredBounds) -> Value:
    if declared.provenance not in DECLARED_PROVENANCES:
        raise ProgramError(f"declared bounds are 'structural' or 'calibrated', got {declared.provenance!r}")
    check_text("reason", declared.reason)
    if not declared.reason.strip():
        raise ProgramError("declared bounds need a reason of one line")
    both = inferred.meet(Bounds.of(declared.lo, declared.hi), shape)
    if both is None:
        raise ProgramError(
            f"declared bounds {np.min(declared.lo)} to {np.max(declared.hi)} do not meet the inferred "
            f"[{inferred.minimum}, {inferred.maximum}] in every element"
        )
    if both == inferred:
        return Value(shape, inferred)
    return Value(shape, both.compact(), declared.provenance, declared.reason)


def verify(program: Program, *, reinfer: bool = True) -> None:
    """Raise ProgramError naming the first invariant that `program` breaks.

    Parameters
    ----------
    program : Program
    reinfer : bool, default=True
        Infer every node again and compare. The builder, which has just done so, passes False.
    """
    if reinfer:
        for index, node in enumerate(program.nodes):
            check_text(f"%{index} {node.op}: name", node.name)
            _verify_node(program, index, node)
    if not program.outputs:
        raise ProgramError("a program must return at least one output")
    for output in program.outputs:
        if not 0 <= output < len(program.nodes):
            raise ProgramError(f"output %{output} must be one of the {len(program.nodes)} nodes")


def _verify_node(program: Program, index: int, node: Node) -> None:
    where = program.label(index)
    if any(not 0 <= i < index for i in node.operands):
        raise ProgramError(f"{where}: operands {node.operands} must be earlier nodes")
    declared = None
    if node.value.provenance != "proved":
        bounds = node.value.bounds
        declared = DeclaredBounds(bounds.lo, bounds.hi, node.value.provenance, node.value.reason)
    value, kept = infer(where, node.op, [program.nodes[i] for i in node.operands], node.attributes, declared)
    if list(kept) != list(node.attributes):
        raise ProgramError(f"{where}: attributes must be in alphabetical order")
    if value.shape != node.value.shape or value.bounds != node.value.bounds:
        raise ProgramError(f"{where}: stored shape or bounds differ from the inferred ones")
    if value.provenance != node.value.provenance:
        raise ProgramError(f"{where}: bounds are said to be {node.value.provenance}, but they are {value.provenance}")

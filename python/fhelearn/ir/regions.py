"""Linear regions: the values that share one ciphertext width."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fhelearn.exceptions import ProgramError
from fhelearn.ir.interval import bit_width
from fhelearn.ir.op_spec import OpSpec
from fhelearn.ir.ops import OPS
from fhelearn.ir.program import Node, Program


class RegionType(NamedTuple):
    """The integer type that all values of a linear region have when encrypted."""

    bit_width: int
    signed: bool


def starts_region(spec: OpSpec) -> bool:
    """Whether the op's result is a fresh ciphertext: sources, lookups and products, but not `round`.

    Rounding removes low bits of the same encoding, so its result shares its operand's scale and padding.
    """
    return spec.kind == "source" or (spec.kind == "lookup" and spec.name != "round")


def region_ids(program: Program) -> tuple[int, ...]:
    """One number per value; equal numbers mean the same linear region (connected through linear or static nodes).

    The two operands of a product or maximum are added or subtracted to evaluate it, so they share a region.
    """
    parent = list(range(len(program.nodes)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for index, node in enumerate(program.nodes):
        fresh = starts_region(OPS[node.op])
        linked = node.operands if fresh else (index, *node.operands)
        for other in linked[1:]:
            parent[find(other)] = find(linked[0])
    return tuple(find(i) for i in range(len(program.nodes)))


def region_widths(program: Program) -> tuple[RegionType, ...]:
    """Per value, the type of its region: the smallest integer type that holds every value of it that is looked at.

    Concrete gives all values of a linear region one width, because levelled arithmetic cannot change the encoding;
    the encrypted input, too, has the width of the widest accumulator that it feeds. Between a source and the place
    where a value is looked at (lookups, rounding, products, outputs) arithmetic is modular, so sums on the way may be
    wider.
    """
    ids = region_ids(program)
    lows: dict[int, int] = {}
    highs: dict[int, int] = {}
    for region, node, seen in zip(ids, program.nodes, _looked_at(program), strict=True):
        bounds = node.value.bounds
        if seen:
            lows[region] = min(lows.get(region, bounds.minimum), bounds.minimum)
            highs[region] = max(highs.get(region, bounds.maximum), bounds.maximum)
    return tuple(RegionType(bit_width(lows[r], highs[r]), lows[r] < 0) for r in ids)


def _looked_at(program: Program) -> tuple[bool, ...]:
    """Per value, whether its own bounds must fit its region's width."""
    levelled = [OPS[node.op].kind in ("levelled", "static") for node in program.nodes]
    seen = [not plain for plain in levelled]
    for index in program.outputs:
        seen[index] = True
    for node, plain in zip(program.nodes, levelled, strict=True):
        if not plain:
            for operand in node.operands:
                seen[operand] = True
    return tuple(seen)


def dropped_bits(program: Program) -> tuple[int, ...]:
    """Per value, the low bits that `round` has taken out of its encoding: those that a lookup of it does not read.

    They are 0 in all elements, and what follows the rounding only moves elements.
    """
    dropped: list[int] = []
    for node in program.nodes:
        before = min((dropped[i] for i in node.operands), default=0)
        if node.op == "round":
            dropped.append(max(before, node.integer("lsbs")))
        else:
            filled = node.op == "pad" and node.integer("value") != 0
            dropped.append(before if OPS[node.op].kind == "static" and not filled else 0)
    return tuple(dropped)


def _downstream(program: Program, starts: Callable[[Node], bool]) -> tuple[bool, ...]:
    """Per value, whether it is one that `starts` picks or depends on one."""
    found: list[bool] = []
    for node in program.nodes:
        found.append(starts(node) or any(found[i] for i in node.operands))
    return tuple(found)


def may_overflow(program: Program) -> tuple[bool, ...]:
    """Per value, whether it depends on calibrated bounds, so that unseen inputs may push it outside its own bounds."""
    return _downstream(program, lambda node: node.value.provenance == "calibrated")


def may_fail(program: Program) -> tuple[bool, ...]:
    """Per value, whether it depends on a lookup, so that an injected failure may push it outside its own bounds."""
    return _downstream(program, lambda node: node.op == "table_lookup")


def check_wrappable(program: Program) -> None:
    """Raise ProgramError if ``on_overflow="wrap"`` has no meaning for `program`.

    Linear ops, rounding and lookups say what a wrapped value means; products and maxima do not until they are expanded.
    """
    tainted = may_overflow(program)
    for index, node in enumerate(program.nodes):
        if node.op in ("multiply", "maximum") and any(tainted[i] for i in node.operands):
            raise ProgramError(
                f"{program.label(index)}: an operand depends on calibrated bounds, so it may wrap; "
                "apply fhelearn.passes.expand_products to the program first"
            )

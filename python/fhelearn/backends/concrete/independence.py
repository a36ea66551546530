"""Which rounded values must be refreshed by a lookup before levelled arithmetic may use them.

``round`` does not make a fresh ciphertext: exact rounding subtracts the low bits, approximate rounding only relabels
them as noise. So a rounded value still carries its operand's noise (and, if approximate, its operand's low bits), while
``passes.canonicalize_linear`` counts it as a basis value of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fhelearn.ir import OPS, Program, starts_region
from fhelearn.passes.canonicalize_linear import linear_forms


def refreshed_rounds(program: Program) -> frozenset[int]:
    """Indices of the ``round`` nodes whose levelled consumers must read an identity lookup of them.

    Approximate ones, because only a lookup drops their low bits (unless they have none: multiples are not changed); and
    others whose operand's ciphertexts would otherwise be added to themselves, which Concrete's noise model does not
    foresee.
    """
    zeros = _low_zeros(program)
    refreshed = {
        i
        for i, node in enumerate(program.nodes)
        if node.op == "round"
        and node.attributes["method"] == "approximate"
        and zeros[node.operands[0]] < node.integer("lsbs")
    }
    while True:
        unsound = _first_unsound(program, refreshed.__contains__)
        blamed = set() if unsound is None else _rounds_below(program, unsound) - refreshed
        if not blamed:
            return frozenset(refreshed)
        refreshed |= blamed


def _low_zeros(program: Program) -> tuple[int, ...]:
    """Per value, how many low bits are known to be 0 in all its elements."""
    zeros: list[int] = []
    for node in program.nodes:
        known = min((zeros[i] for i in node.operands), default=0)
        if node.op == "multiply_constant":
            common = int(np.gcd.reduce(node.array("value"), axis=None))
            zeros.append(known + ((common & -common).bit_length() - 1 if common else 0))
        elif node.op == "round":
            zeros.append(max(known, node.integer("lsbs")))
        else:
            moves = OPS[node.op].kind == "static" and not (node.op == "pad" and node.integer("value"))
            zeros.append(known if moves else 0)
    return tuple(zeros)


def _first_unsound(program: Program, fresh_round: Callable[[int], bool]) -> int | None:
    """The first levelled node that adds a ciphertext to itself, reading through rounds that are not fresh."""
    forms = linear_forms(program, lambda i: starts_region(OPS[program.nodes[i].op]) or fresh_round(i))
    return next((i for i, form in enumerate(forms) if not form.sound), None)


def _rounds_below(program: Program, index: int) -> set[int]:
    """Rounds that node `index` reads without a lookup between."""
    found: set[int] = set()
    pending = list(program.nodes[index].operands)
    while pending:
        current = pending.pop()
        node = program.nodes[current]
        if node.op == "round":
            found.add(current)
        if not starts_region(OPS[node.op]):
            pending.extend(node.operands)
    return found

"""Which rounded values must be refreshed by a lookup before levelled arithmetic may use them.

``round`` does not make a fresh ciphertext: exact rounding subtracts the low bits, approximate rounding only relabels
them as noise. So a rounded value still carries its operand's noise (and, if approximate, its operand's low bits), while
``passes.canonicalize_linear`` counts it as a basis value of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from fhelearn.ir import OPS, Program, starts_region
from fhelearn.passes.canonicalize_linear import linear_forms


def refreshed_rounds(program: Program) -> frozenset[int]:
    """Indices of the ``round`` nodes whose levelled consumers must read an identity lookup of them.

    All approximate ones, because only a lookup drops their low bits; and exact ones whose operand's ciphertexts would
    otherwise be added to themselves, which Concrete's noise model does not foresee.
    """
    rounds = [i for i, node in enumerate(program.nodes) if node.op == "round"]
    refreshed = {i for i in rounds if program.nodes[i].attributes["method"] == "approximate"}
    while True:
        unsound = _first_unsound(program, refreshed.__contains__)
        blamed = set() if unsound is None else _rounds_below(program, unsound) - refreshed
        if not blamed:
            return frozenset(refreshed)
        refreshed |= blamed


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

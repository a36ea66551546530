"""Which rounded values must be refreshed by a lookup before levelled arithmetic may use them.

``round`` does not make a fresh ciphertext: exact rounding subtracts the low bits, approximate rounding only relabels
them as noise. So a rounded value still carries its operand's noise (and, if approximate, its operand's low bits), while
``passes.canonicalize_linear`` counts it as a basis value of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fhelearn.ir import OPS, Node, Program, starts_region

_MIXING = ("matmul", "conv2d", "conv1d", "sum_pool2d", "sum")


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
    forms: list[tuple[frozenset[int], bool]] = []  # (ciphertexts in the value, whether its elements share none)
    for index, node in enumerate(program.nodes):
        if starts_region(OPS[node.op]) or fresh_round(index):
            forms.append((frozenset() if node.op == "constant" else frozenset([index]), True))
            continue
        operands = [forms[i] for i in node.operands]
        basis = frozenset[int]().union(*(form[0] for form in operands))
        disjoint = sum(len(form[0]) for form in operands) == len(basis)
        distinct = disjoint and all(form[1] for form in operands)
        adds_shared = (node.op in _MIXING and not operands[0][1]) or (node.op in ("add", "sub") and not disjoint)
        if adds_shared and basis:
            return index
        forms.append((basis, distinct and _keeps_distinct(program, node)))
    return None


def _keeps_distinct(program: Program, node: Node) -> bool:
    if node.op in _MIXING:
        return False
    if node.op == "gather":
        return len(np.unique(node.array("indices"))) == node.array("indices").size
    return node.op != "broadcast" or node.value.size == program.nodes[node.operands[0]].value.size


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

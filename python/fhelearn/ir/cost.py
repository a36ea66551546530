"""What a program will cost when encrypted: lookups by input width, and a price to compare plans with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fhelearn.ir.ops import OPS
from fhelearn.ir.program import Node, Program, Value
from fhelearn.ir.regions import dropped_bits, region_widths

PRICE_PER_LOOKUP: Mapping[int, int] = {1: 26, 2: 30, 3: 42, 4: 62, 5: 99, 6: 230, 7: 796, 8: 1217}
"""Millions of elementary operations per lookup by input bits: what Concrete's optimizer says at p_error 2**-17.

For comparing plans; the exact complexity of a circuit is read back from the compiled program.
"""

PRICE_PER_ROUNDED_BIT = 62
"""Millions of operations per bit that exact rounding removes: measured, about a 4-bit lookup's at any width."""

_WIDE_FACTOR = 4  # beyond 8 bits the optimizer's price roughly quadruples per bit, up to 16 bits


@dataclass(frozen=True)
class Cost:
    """Exact counts per row, and a price.

    Attributes
    ----------
    lookups : mapping of int to int
        Number of table lookups by bit width of the encrypted operand.
    multiply_accumulates : int
        Products of an encrypted value with a clear weight.
    price : int
        Millions of elementary operations spent on lookups, by :data:`PRICE_PER_LOOKUP`.
    """

    lookups: Mapping[int, int]
    multiply_accumulates: int
    price: int

    @property
    def total_lookups(self) -> int:
        """Number of lookups of all widths."""
        return sum(self.lookups.values())


def lookup_price(bit_width: int) -> int:
    """Price in millions of operations of one lookup whose operand has `bit_width` >= 1 bits."""
    widest = max(PRICE_PER_LOOKUP)
    if bit_width <= widest:
        return PRICE_PER_LOOKUP[max(bit_width, 1)]
    return PRICE_PER_LOOKUP[widest] * int(_WIDE_FACTOR ** (bit_width - widest))


class LookupCount(NamedTuple):
    """How many lookups of a width a node needs per row."""

    node: int
    bit_width: int
    lookups: int
    rounding: bool = False
    """Whether they take one bit out of a value, in exact rounding; `bit_width` is that of what is left then."""

    @property
    def price(self) -> int:
        """Millions of operations of all of them."""
        return self.lookups * (PRICE_PER_ROUNDED_BIT if self.rounding else lookup_price(self.bit_width))


def lookup_counts(program: Program) -> list[LookupCount]:
    """The lookups of a program, in order, at the width of what they read: its region's, less rounded bits.

    An exact `round` needs one lookup per element and removed bit, each on what is left, an approximate one none;
    products and maxima are counted as the lookups they expand to, on operands one bit wider.
    """
    regions, dropped = region_widths(program), dropped_bits(program)
    counts: list[LookupCount] = []
    for index, node in enumerate(program.nodes):
        before = min((dropped[i] for i in node.operands), default=0)
        width = regions[node.operands[0]].bit_width if node.operands else 0
        if node.op == "round":
            if node.attributes["method"] == "exact":
                bits = range(width - before, width - dropped[index], -1)
                counts += [LookupCount(index, max(b, 1), node.value.size, rounding=True) for b in bits]
            continue
        count = OPS[node.op].lookups([program.nodes[i].value for i in node.operands], node.attributes)
        if count:
            extra = 1 if node.op in ("multiply", "maximum") else 0
            counts.append(LookupCount(index, max(width - before, 1) + extra, count))
    return counts


def cost(program: Program) -> Cost:
    """Count what one row of `program` needs; see :func:`lookup_counts`."""
    counts = lookup_counts(program)
    lookups: Counter[int] = Counter()
    for count in counts:
        lookups[count.bit_width] += count.lookups
    price = sum(count.price for count in counts)
    return Cost(dict(sorted(lookups.items())), sum(_products(node) for node in program.nodes), price)


def inference_work(op: str, shape: tuple[int, ...], operands: Sequence[Value], attributes: Mapping[str, Any]) -> int:
    """Steps that inferring the bounds of a node takes at most: its products or sums, or the elements it touches."""
    size = prod(shape)
    touched = max([size, *(x.size for x in operands)])
    if op in ("matmul", "conv1d", "conv2d"):
        weights = attributes["weights"]
        terms = int(weights.shape[0] if op == "matmul" else weights.size // weights.shape[0])
        return max(size * terms, touched)
    if op == "sum_pool2d":
        return touched * int(sum(attributes["kernel"]))
    return touched


def _products(node: Node) -> int:
    if node.op == "matmul":
        return node.value.size * int(node.array("weights").shape[0])
    if node.op in ("conv1d", "conv2d"):
        return node.value.size * int(np.prod(node.array("weights").shape[1:]))
    return node.value.size if node.op == "multiply_constant" else 0

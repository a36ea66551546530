"""How trees are cut into table lookups.

**A piece** is a connected part of a tree below one node r. Its index is

    index = width * (number of path literals that hold) + own

* The *path literals* say that a row has come to r: one per chain of conditions asked on the way (conditions of a chain
  are nested, so ``x <= 5 and not x <= 3`` is the one number ``[x <= 5] - [x <= 3]``). With m literals the count is m
  where all hold.
* *own* numbers the outcomes of the piece's own conditions: a mixed-radix number with one digit per chain, which is how
  many of its k conditions hold, 0 to k. So ``width`` is the product of all ``k + 1``.

Below ``width * m`` the table is 0, above it holds the leaf that `own` leads to. Sub-trees that the piece leaves out
(its *holes*, which are pieces of their own) and leaves of value 0 count as 0, so the tree is the sum of its pieces.
One value of every tree may be chosen to be 0, because the decoder can add a constant: that leaf costs nothing.

**A lookup** evaluates one piece, or the sum of several small ones of any trees: their indices are the digits of its
index, so its size is the product of their sizes. Pieces of equal index are added up first, and pieces without literals
that ask the same chains share their digits.

**Which cut?** All lookups of a circuit cost the same: they share the cryptographic parameters of the widest. So for
each number of bits b, pieces of least total cost with at most ``2**b`` values are found by dynamic programming over the
nodes, deepest first, then packed, best fit, largest first; the b whose lookups cost least together is taken. What a
piece costs depends on how well small ones will pack: between 1 (each fills a lookup) and its share of the bits,
``log2(size) / b``. Several mixtures are tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, log2, prod

import numpy as np

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.scalar import ScalarTree

LOOKUP_PRICE: Mapping[int, float] = {1: 6.5, 2: 7, 3: 7, 4: 8.3, 5: 21, 6: 48, 7: 140, 8: 250}
"""Milliseconds per lookup by bits of the index, for sums of many lookups of 8-bit leaves at p_error 2**-40, on two
cores; only their ratios count for the cut. Concrete's optimizer prices them at 75, 82, 101, 142, 330 and 764
million operations (1 to 6 bits), the same for sums of 9 to 14 bits; narrow ones take longer than it says, for their
keys are larger."""

WIDEST = 16
"""Bits of the widest index that Concrete can look up."""

_SEARCH_STEPS = 96
"""Nodes that the search for a piece may look at. Pieces have few conditions (four independent ones fill 4 bits), so
only trees that ask one feature again and again come near it; there the first piece found takes all that fits."""

_FEW_LEAVES = 16
"""Trees of at most so many leaves try every leaf value as the one that is 0; larger ones the most frequent."""

_SAMPLE = 32
"""Trees on which bits and mixture are chosen, when there are more."""

_MIXTURES = (0.0, 0.5, 0.9)
"""Weights of a piece's share of the bits in its cost; the rest is the weight of 1."""


@dataclass(frozen=True)
class Piece:
    """A connected part of a tree, or a sum of such parts without literals.

    Attributes
    ----------
    literals : tuple of (int or None, int or None)
        Conditions of one chain: the first holds (None: always does) and the second does not (None: never holds).
    digits : tuple of tuple of int
        Own conditions, one tuple per chain, each implying the next.
    own : tuple of int
        Value by the own number; the first digit is the least significant.
    trees : frozenset of int
        Indices of the trees that it is a part of.
    """

    literals: tuple[tuple[int | None, int | None], ...]
    digits: tuple[tuple[int, ...], ...]
    own: tuple[int, ...]
    trees: frozenset[int]

    @property
    def size(self) -> int:
        """Number of values of the index."""
        return len(self.own) * (len(self.literals) + 1)

    def table(self) -> list[int]:
        """The entries by index."""
        return [0] * (len(self.own) * len(self.literals)) + list(self.own)

    def spread(self, digits: tuple[tuple[int, ...], ...]) -> list[int]:
        """`own` by the number that `digits` form, which hold every condition of the piece."""
        entries = []
        for true in outcomes(digits):
            number, radix = 0, 1
            for digit in self.digits:
                number += radix * sum(condition in true for condition in digit)
                radix *= len(digit) + 1
            entries.append(self.own[number])
        return entries

    def index_weights(self) -> tuple[dict[int, int], int]:
        """The index as ``sum of weight * condition + constant``."""
        weights: Counter[int] = Counter()
        constant, scale = 0, len(self.own)
        for holds, fails in self.literals:
            if holds is None:
                constant += scale
            else:
                weights[holds] += scale
            if fails is not None:
                weights[fails] -= scale
        radix = 1
        for digit in self.digits:
            for condition in digit:
                weights[condition] += radix
            radix *= len(digit) + 1
        return dict(weights), constant


@dataclass(frozen=True)
class Lookup:
    """A sum of pieces that one table evaluates.

    Attributes
    ----------
    output : int
        The output that the sum is a part of.
    pieces : tuple of Piece
        Their indices are the digits of the lookup's index, the first the least significant.
    """

    output: int
    pieces: tuple[Piece, ...]

    @property
    def trees(self) -> frozenset[int]:
        """Indices of the trees that it is a part of."""
        return frozenset().union(*(piece.trees for piece in self.pieces))

    @property
    def size(self) -> int:
        """Number of values of the index."""
        return prod(piece.size for piece in self.pieces)

    def table(self) -> list[int]:
        """The entries."""
        tables = [piece.table() for piece in reversed(self.pieces)]
        return [sum(entries) for entries in product(*tables)]

    def index_weights(self) -> tuple[dict[int, int], int]:
        """The index as ``sum of weight * condition + constant``."""
        weights: Counter[int] = Counter()
        constant, radix = 0, 1
        for piece in self.pieces:
            own, offset = piece.index_weights()
            for condition, weight in own.items():
                weights[condition] += radix * weight
            constant += radix * offset
            radix *= piece.size
        return dict(weights), constant


@dataclass(frozen=True)
class Cut:
    """A sum of trees as a sum of lookups: ``sum over trees of zero + sum over lookups of table``.

    Attributes
    ----------
    lookups : tuple of Lookup
        By output.
    zeros : tuple of int
        Per tree, what its leaves are counted from.
    bit_width : int
        Bits of the widest index.
    prices : mapping of int to float
        Prices of the cuts that were compared, in milliseconds, by bits; of a sample of the trees where there are many.
    """

    lookups: tuple[Lookup, ...]
    zeros: tuple[int, ...]
    bit_width: int
    prices: Mapping[int, float]


@dataclass(frozen=True)
class Pricing:
    """What pieces may need: at most ``2**bits`` values; `mixture` says how well small ones are expected to pack."""

    bits: int
    mixture: float

    def costs(self) -> list[float]:
        """Cost of a piece by its number of values."""
        share = self.mixture / self.bits
        return [0.0, *((1 - self.mixture) + share * log2(size) for size in range(1, (1 << self.bits) + 1))]


def cut_trees(trees: Sequence[ScalarTree], outputs: Sequence[int], chain: Sequence[int]) -> Cut:
    """Cut trees into the cheapest lookups.

    Parameters
    ----------
    trees : sequence of ScalarTree
    outputs : sequence of int
        The output that each tree adds to.
    chain : sequence of int
        Chain of each condition.

    Raises
    ------
    LoweringError
        If a tree needs an index of more than :data:`WIDEST` bits.
    """
    # drawn, because trees of several classes take turns
    sample = list(range(len(trees)))
    if len(trees) > _SAMPLE:
        sample = sorted(np.random.default_rng(0).choice(len(trees), _SAMPLE, replace=False).tolist())
    some, their_outputs = [trees[i] for i in sample], [outputs[i] for i in sample]
    prices: dict[Pricing, float] = {}
    for bits, price in LOOKUP_PRICE.items():
        narrower = min(prices.values(), default=inf)
        tried = [Pricing(bits, mixture) for mixture in _MIXTURES]
        cuts = [_cut_for(some, their_outputs, chain, pricing) for pricing in tried]
        prices |= {p: price * len(cut[0]) for p, cut in zip(tried, cuts, strict=True) if cut is not None}
        if all(prices.get(pricing, 0.0) > narrower for pricing in tried):
            break  # wider lookups only get dearer from here on
    order = sorted(prices, key=lambda pricing: prices[pricing])
    for pricing in [*order, *(Pricing(bits, 0.0) for bits in range(max(LOOKUP_PRICE) + 1, WIDEST + 1))]:
        cut = _cut_for(trees, outputs, chain, pricing)
        if cut is not None:
            lookups, zeros = cut
            width = max(((lookup.size - 1).bit_length() for lookup in lookups), default=1)
            best = {p.bits: min(prices[q] for q in prices if q.bits == p.bits) for p in prices}
            return Cut(tuple(lookups), tuple(zeros), max(width, 1), best)
    raise LoweringError(
        f"a tree asks more than {2**WIDEST - 2} features on the way to one leaf, more than a lookup can count; limit "
        "max_depth"
    )


def _cut_for(
    trees: Sequence[ScalarTree], outputs: Sequence[int], chain: Sequence[int], pricing: Pricing
) -> tuple[list[Lookup], list[int]] | None:
    """Lookups and zeros; None if a path is too long for the bits."""
    pieces: dict[int, list[Piece]] = {}
    zeros = []
    costs = pricing.costs()
    for index, (tree, output) in enumerate(zip(trees, outputs, strict=True)):
        cost, zero, chosen = _cheapest(tree, chain, costs)
        if cost == inf:
            return None
        zeros.append(zero)
        pieces.setdefault(output, []).extend(_pieces(tree, index, chain, zero, chosen))
    capacity = 1 << pricing.bits
    return [lookup for output in sorted(pieces) for lookup in pack(pieces[output], output, chain, capacity)], zeros


def _cheapest(tree: ScalarTree, chain: Sequence[int], costs: Sequence[float]) -> tuple[float, int, list[list[int]]]:
    """The least cost of a tree, the value to be 0 for it, and per node the own nodes of the piece that begins there.

    The cost is infinite if a path is too long.
    """
    values = Counter(tree.leaf_values)
    zeros = [value for value, _ in values.most_common(None if len(values) <= _FEW_LEAVES else 1)]
    search = _Search(tree, chain, costs)
    return min((search.run(zero) for zero in zeros), key=lambda found: found[0])


class _Search:
    """The dynamic program on one tree: the cheapest pieces below each node, deepest first."""

    def __init__(self, tree: ScalarTree, chain: Sequence[int], costs: Sequence[float]) -> None:
        self.tree = tree
        self.chain = chain
        self.costs = costs
        # per node, how often its piece's own numbers are counted: one more than the path's literals
        self.counts = [len(chains) + 1 for chains in _path_chains(tree, chain)]

    def run(self, zero: int) -> tuple[float, int, list[list[int]]]:
        """The cost, `zero`, and per node the own nodes of its piece (empty: a leaf's piece, or none)."""
        tree, limit = self.tree, len(self.costs) - 1
        self.cost = [0.0] * len(tree)
        chosen: list[list[int]] = [[] for _ in range(len(tree))]
        for node in range(len(tree) - 1, -1, -1):
            self.count = self.counts[node]
            if tree.condition[node] < 0:
                if tree.value[node] != zero:
                    self.cost[node] = self.costs[self.count] if self.count <= limit else inf
                continue
            self.best = self.cost[tree.left[node]] + self.cost[tree.right[node]]
            self.found: list[int] = []
            if self.best > 0 and 2 * self.count <= limit:
                self.steps = _SEARCH_STEPS
                self._extend([node], [], {}, 1, 0.0)
            self.cost[node], chosen[node] = self.best, self.found
        return self.cost[0], zero, chosen

    def _extend(
        self, frontier: list[int], own: list[int], digits: dict[int, frozenset[int]], width: int, holes: float
    ) -> None:
        """Decide the last node of `frontier`: part of the piece, or a hole that costs what its own pieces cost."""
        tree = self.tree
        while frontier and tree.condition[frontier[-1]] < 0:
            frontier = frontier[:-1]
        cost = holes + self.costs[width * self.count]
        if cost >= self.best or self.steps <= 0:
            return
        if not frontier:
            self.best, self.found = cost, own
            return
        self.steps -= 1
        node, rest = frontier[-1], frontier[:-1]
        condition = tree.condition[node]
        chain = self.chain[condition]
        asked = digits.get(chain, frozenset())
        wider = width if condition in asked else width // (len(asked) + 1) * (len(asked) + 2)
        if wider * self.count < len(self.costs):
            more = {**digits, chain: asked | {condition}}
            self._extend([*rest, tree.right[node], tree.left[node]], [*own, node], more, wider, holes)
        if own:  # the piece begins at its first node
            self._extend(rest, own, digits, width, holes + self.cost[node])


def pack(pieces: Sequence[Piece], output: int, chain: Sequence[int], capacity: int) -> list[Lookup]:
    """Put pieces together into lookups of at most `capacity` values; best fit, largest first."""
    rooms: list[list[list[Piece]]] = [[] for _ in range(capacity + 1)]
    lookups: list[list[Piece]] = []
    distinct = _share_digits(_add_equal(pieces, chain), chain, capacity)
    for piece in sorted(distinct, key=lambda piece: -piece.size):
        room = next((r for r in range(piece.size, capacity + 1) if rooms[r]), 0)
        if room:
            members = rooms[room].pop()
        else:
            members, room = [], capacity
            lookups.append(members)
        members.append(piece)
        rooms[room // piece.size].append(members)
    return [Lookup(output, tuple(members)) for members in lookups]


def _add_equal(pieces: Sequence[Piece], chain: Sequence[int]) -> list[Piece]:
    """Add up pieces of equal index, which trees that share their upper splits have.

    This is needed for correctness, not only for the price: lookups of one table at one index are the same ciphertext,
    noise included, and adding a ciphertext to itself breaks the noise budget.
    """
    merged: dict[tuple[object, ...], Piece] = {}
    for piece in pieces:
        plain = _sorted_piece(_without_literal(piece, chain))
        key = (plain.literals, plain.digits)
        other = merged.get(key)
        if other is not None:
            own = tuple(a + b for a, b in zip(other.own, plain.own, strict=True))
            plain = Piece(plain.literals, plain.digits, own, other.trees | plain.trees)
        merged[key] = plain
    return list(merged.values())


def _sorted_piece(piece: Piece) -> Piece:
    """The same piece with literals and digits in the one order that equal pieces share."""
    literals = tuple(sorted(piece.literals, key=lambda literal: tuple(-1 if c is None else c for c in literal)))
    digits = tuple(sorted(piece.digits))
    own = piece.own if digits == piece.digits else tuple(piece.spread(digits))
    return Piece(literals, digits, own, piece.trees)


def _share_digits(pieces: Sequence[Piece], chain: Sequence[int], capacity: int) -> list[Piece]:
    """Add up pieces without literals that ask the same chains, as far as their common digits fit."""
    merged: dict[tuple[int, ...], Piece] = {}
    result = []
    for piece in pieces:
        if piece.literals:
            result.append(piece)
            continue
        key = tuple(sorted(chain[digit[0]] for digit in piece.digits))
        other = merged.get(key)
        if other is None:
            merged[key] = piece
            continue
        digits = _common_digits(other, piece, chain)
        if prod(len(digit) + 1 for digit in digits) <= capacity:
            own = [a + b for a, b in zip(other.spread(digits), piece.spread(digits), strict=True)]
            merged[key] = Piece((), digits, tuple(own), other.trees | piece.trees)
        else:
            result.append(other)
            merged[key] = piece
    return [*result, *merged.values()]


def _without_literal(piece: Piece, chain: Sequence[int]) -> Piece:
    """The same piece with its only literal as a digit, if that literal is one condition: as many values or fewer."""
    if len(piece.literals) != 1 or None not in piece.literals[0]:
        return piece
    holds, fails = piece.literals[0]
    off = [0] * len(piece.own)
    condition = holds if fails is None else fails
    assert condition is not None  # a literal asks something
    own = [*off, *piece.own] if fails is None else [*piece.own, *off]
    free = Piece((), (*piece.digits, (condition,)), tuple(own), piece.trees)
    digits = _common_digits(free, free, chain)  # its own digits may ask the same chain
    return Piece((), digits, tuple(free.spread(digits)), piece.trees)


def _common_digits(first: Piece, second: Piece, chain: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    by_chain: dict[int, set[int]] = {}
    for digit in (*first.digits, *second.digits):
        by_chain.setdefault(chain[digit[0]], set()).update(digit)
    return tuple(tuple(sorted(conditions)) for conditions in by_chain.values())


def _path_chains(tree: ScalarTree, chain: Sequence[int]) -> list[frozenset[int]]:
    """Per node, the chains of the conditions asked on the way to it."""
    chains: list[frozenset[int]] = [frozenset()] * len(tree)
    for node, condition in enumerate(tree.condition):
        if condition >= 0:
            here = chains[node] if chain[condition] in chains[node] else chains[node] | {chain[condition]}
            chains[tree.left[node]] = chains[tree.right[node]] = here
    return chains


def outcomes(digits: Sequence[tuple[int, ...]]) -> Iterator[set[int]]:
    """The conditions that hold, for each value of the number that `digits` form, the first the least significant.

    Of the conditions of a digit, each of which implies the next, the last ones hold.
    """
    for counts in product(*(range(len(digit) + 1) for digit in reversed(digits))):
        yield {c for digit, n in zip(reversed(digits), counts, strict=True) for c in digit[len(digit) - n :]}


def _pieces(tree: ScalarTree, index: int, chain: Sequence[int], zero: int, chosen: list[list[int]]) -> Iterator[Piece]:
    parent = [-1] * len(tree)
    for node, condition in enumerate(tree.condition):
        if condition >= 0:
            parent[tree.left[node]] = parent[tree.right[node]] = node
    pending = [0]
    while pending:
        node = pending.pop()
        own = set(chosen[node])
        inner = own or ({node} if tree.condition[node] >= 0 else own)
        children = [child for n in inner for child in (tree.left[n], tree.right[n]) if child not in own]
        # leaves of a piece are evaluated by it
        pending += [child for child in children if not own or tree.condition[child] >= 0]
        if own or (tree.condition[node] < 0 and tree.value[node] != zero):
            literals = _literals(tree, chain, parent, node)
            yield Piece(literals, *_own(tree, chain, zero, node, own), frozenset([index]))


def _own(
    tree: ScalarTree, chain: Sequence[int], zero: int, root: int, own: set[int]
) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Digits and values of the piece with the inner nodes `own`."""
    by_chain: dict[int, set[int]] = {}
    for node in own:
        by_chain.setdefault(chain[tree.condition[node]], set()).add(tree.condition[node])
    digits = tuple(tuple(sorted(conditions)) for conditions in by_chain.values())
    values = []
    for true in outcomes(digits):
        node = root
        while node in own:
            node = tree.left[node] if tree.condition[node] in true else tree.right[node]
        values.append(0 if tree.condition[node] >= 0 else tree.value[node] - zero)
    return digits, tuple(values)


def _literals(
    tree: ScalarTree, chain: Sequence[int], parent: list[int], node: int
) -> tuple[tuple[int | None, int | None], ...]:
    """Per chain asked on the way to `node`, the narrowest condition that holds and the widest that does not."""
    holds: dict[int, int] = {}
    fails: dict[int, int] = {}
    chains: dict[int, None] = {}
    while (above := parent[node]) >= 0:
        condition = tree.condition[above]
        on = chain[condition]
        chains[on] = None
        if tree.left[above] == node:
            holds[on] = min(condition, holds.get(on, condition))
        else:
            fails[on] = max(condition, fails.get(on, condition))
        node = above
    return tuple((holds.get(on), fails.get(on)) for on in chains)

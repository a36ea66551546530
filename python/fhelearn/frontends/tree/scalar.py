"""Trees of one integer output each, without splits that decide nothing.

What the server evaluates is a sum of such trees: one per tree of the forest and output that its leaves add to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from fhelearn.frontends.tree.conditions import Conditions
from fhelearn.frontends.tree.forest import TreeNodes
from fhelearn.typing import IntArray


@dataclass(frozen=True)
class ScalarTree:
    """A tree with one integer per leaf; parents come before their children, the root first.

    Attributes
    ----------
    condition : list of int
        What each inner node asks; -1 at leaves.
    left, right : list of int
        The child where the condition holds, and the other; -1 at leaves.
    value : list of int
        Of leaves; 0 at inner nodes.
    """

    condition: list[int]
    left: list[int]
    right: list[int]
    value: list[int]

    def __len__(self) -> int:
        return len(self.condition)

    @property
    def leaf_values(self) -> list[int]:
        """Values of all leaves, with repetitions."""
        return [v for c, v in zip(self.condition, self.value, strict=True) if c < 0]


class _Region(NamedTuple):
    """Values of one feature that can reach a node: the interval (above, upto], the categories, and whether missing.

    `above` None means that the interval has no lower end, so that it holds -inf. `among` None means every category
    that is not `excluded`.
    """

    above: float | None = None
    upto: float = np.inf
    among: frozenset[int] | None = None
    excluded: frozenset[int] = frozenset()
    nan: bool = True

    def holds_always(self, threshold: float, members: frozenset[int] | None, nan_true: bool) -> bool:
        """Whether a condition holds everywhere in the region."""
        if self.nan and not nan_true:
            return False
        if members is None:
            return self.upto <= threshold
        return self.among is not None and self.among <= members

    def holds_never(self, threshold: float, members: frozenset[int] | None, nan_true: bool) -> bool:
        """Whether a condition holds nowhere in the region."""
        if self.nan and nan_true:
            return False
        if members is None:
            return self.above is not None and threshold <= self.above
        return members <= self.excluded if self.among is None else not self.among & members

    def where(self, holds: bool, threshold: float, members: frozenset[int] | None, nan_true: bool) -> _Region:
        """The part of the region where a condition holds, or where it does not."""
        nan = self.nan and nan_true == holds
        if members is None:
            if holds:
                return self._replace(upto=min(self.upto, threshold), nan=nan)
            return self._replace(above=threshold if self.above is None else max(self.above, threshold), nan=nan)
        if holds:
            return self._replace(among=members - self.excluded if self.among is None else self.among & members, nan=nan)
        if self.among is None:
            return self._replace(excluded=self.excluded | members, nan=nan)
        return self._replace(among=self.among - members, nan=nan)


Fact: TypeAlias = tuple[float, frozenset[int] | None, bool]
"""A condition's threshold, its categories (None: it asks the threshold), and whether it holds for missing values."""


def facts_of(conditions: Conditions) -> list[Fact]:
    """Conditions as plain Python values, which are faster to read one by one."""
    return list(zip(conditions.threshold.tolist(), conditions.members, conditions.nan_true.tolist(), strict=True))


def live_nodes(tree: TreeNodes, asks: IntArray, facts: Sequence[Fact], accepts_nan: bool) -> ScalarTree:
    """The nodes of a tree that some row can reach, in order; dead splits are gone, `value` is the node's old index."""
    feature, left, right = tree.feature.tolist(), tree.left.tolist(), tree.right.tolist()
    questions = asks.tolist()
    start = _Region(nan=accepts_nan)
    live = ScalarTree([], [], [], [])
    pending: list[tuple[int, dict[int, _Region], list[int] | None, int]] = [(0, {}, None, 0)]
    while pending:
        node, regions, slots, parent = pending.pop()
        while feature[node] >= 0:  # follow splits that only one side of can be reached
            region, fact = regions.get(feature[node], start), facts[questions[node]]
            if region.holds_always(*fact):
                node = left[node]
            elif region.holds_never(*fact):
                node = right[node]
            else:
                break
        index = len(live)
        if slots is not None:
            slots[parent] = index
        _append(live, questions[node], node)
        if feature[node] >= 0:
            for child, side, holds in ((right[node], live.right, False), (left[node], live.left, True)):
                pending.append((child, {**regions, feature[node]: region.where(holds, *fact)}, side, index))
    return live


def _append(tree: ScalarTree, condition: int, value: int) -> None:
    tree.condition.append(condition)
    tree.left.append(-1)
    tree.right.append(-1)
    tree.value.append(value)


def scalar_tree(live: ScalarTree, values: Sequence[int]) -> ScalarTree:
    """The tree whose leaf `n` (by old index) has ``values[n]``, with splits between equal sub-trees merged."""
    kept = list(range(len(live)))
    numbers: dict[tuple[int, int, int], int] = {}
    number = [0] * len(live)
    for node in range(len(live) - 1, -1, -1):
        if live.condition[node] < 0:
            key = (-1, values[live.value[node]], 0)
        else:
            first, second = kept[live.left[node]], kept[live.right[node]]
            if number[first] == number[second]:
                kept[node] = first
                continue
            key = (live.condition[node], number[first], number[second])
        number[node] = numbers.setdefault(key, len(numbers))
    merged = ScalarTree([], [], [], [])
    pending: list[tuple[int, list[int] | None, int]] = [(kept[0], None, 0)]
    while pending:
        node, slots, parent = pending.pop()
        index = len(merged)
        if slots is not None:
            slots[parent] = index
        leaf = live.condition[node] < 0
        _append(merged, live.condition[node], values[live.value[node]] if leaf else 0)
        if not leaf:
            pending.append((kept[live.right[node]], merged.right, index))
            pending.append((kept[live.left[node]], merged.left, index))
    return merged

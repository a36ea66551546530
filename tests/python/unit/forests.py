"""Random forests of the tree front end, and their native form."""

from __future__ import annotations

import numpy as np

from fhelearn.backends.native_forest import ForestEngine
from fhelearn.frontends.tree.forest import Forest, TreeNodes
from fhelearn.quantization.conditions import ConditionEncoder


def random_tree(rng: np.random.Generator, forest: dict, depth: int, width: int, first_output: int) -> TreeNodes:
    """A tree of at most `depth` levels; chains and bushes both occur."""
    rows: list[dict] = []
    bushy = rng.random()
    stack = [(0, depth)]
    rows.append({})
    while stack:
        node, left_over = stack.pop()
        leaf = left_over == 0 or len(rows) > 600 or (left_over < depth and rng.random() < 0.3)
        row = {"feature": -1, "threshold": 0.0, "members": -1, "nan_left": False, "left": -1, "right": -1}
        if not leaf:
            feature = int(rng.integers(forest["n_features"]))
            row |= {"feature": feature, "nan_left": bool(rng.integers(2))}
            if feature in forest["categorical"]:
                row["members"] = int(rng.integers(len(forest["category_sets"])))
            else:
                row["threshold"] = float(rng.choice(forest["grid"]))
            for side in ("left", "right"):
                row[side] = len(rows)
                rows.append({})
                deeper = left_over - 1 if side == "left" or rng.random() < bushy else 0
                stack.append((row[side], deeper))
        rows[node] = row
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    value = rng.integers(-100, 101, (len(rows), width)).astype(np.float64)
    value[columns["feature"] >= 0] = 0
    return TreeNodes(**columns, value=value, first_output=first_output, library_id=np.arange(len(rows)))


def random_forest(seed: int, precision: str = "float32", depth: int = 6, n_trees: int = 12) -> Forest:
    """A forest with duplicate conditions, categories, missing values and infinite thresholds."""
    rng = np.random.default_rng(seed)
    n_features = int(rng.integers(1, 8))
    grid = rng.normal(size=int(rng.integers(1, 60))).astype(precision).astype(np.float64)
    grid = np.concatenate([grid, [np.inf, -np.inf, 0.0, -0.0, np.float32(1e-35)]])
    categorical = set(np.flatnonzero(rng.random(n_features) < 0.3).tolist())
    sets = tuple(frozenset(rng.choice(40, size=int(rng.integers(0, 12))).tolist()) for _ in range(6))
    sets += (frozenset({0}), frozenset({2**24 - 1, 3}))
    n_outputs, width = ((1, 1), (4, 1), (3, 3))[int(rng.integers(3))]
    parts = {"n_features": n_features, "grid": grid, "categorical": categorical, "category_sets": sets}
    trees = tuple(
        random_tree(rng, parts, int(rng.integers(depth + 1)), width, t % (n_outputs - width + 1))
        for t in range(n_trees)
    )
    known = {f: frozenset(rng.choice(40, size=20).tolist()) for f in range(n_features) if rng.random() < 0.2}
    return Forest(
        trees=trees,
        n_features=n_features,
        precision=precision,  # type: ignore[arg-type]
        base=np.zeros(n_outputs),
        category_sets=sets,
        accepts_nan=True,
        zero_is_missing=rng.random(n_features) < 0.3,
        known_categories=known,
    )


def asked(forest: Forest) -> tuple[ConditionEncoder, list[np.ndarray]]:
    """The distinct conditions of a forest, and per tree the condition of each node."""
    number: dict[tuple, int] = {}
    of_trees = []
    for tree in forest.trees:
        keys = zip(
            tree.feature.tolist(), tree.threshold.tolist(), tree.members.tolist(), tree.nan_left.tolist(), strict=True
        )
        of_trees.append(np.array([-1 if key[0] < 0 else number.setdefault(key, len(number)) for key in keys]))
    feature, threshold, members, nan_true = (list(c) for c in zip(*number, strict=True)) if number else ([],) * 4
    encoder = ConditionEncoder(
        n_features=forest.n_features,
        precision=forest.precision,
        feature=np.array(feature, dtype=np.int64),
        threshold=np.array(threshold, dtype=np.float64),
        members=tuple(forest.category_sets[m] if m >= 0 else None for m in members),
        nan_true=np.array(nan_true, dtype=np.bool_),
        zero_is_missing=forest.zero_is_missing,  # type: ignore[arg-type]
        known_categories=forest.known_categories,
    )
    return encoder, of_trees


def tree_arrays(forest: Forest, of_trees: list[np.ndarray]) -> dict:
    """The tree arrays that ForestEngine takes."""
    sizes = [len(tree.feature) for tree in forest.trees]
    starts = np.cumsum([0, *sizes])
    moved = [
        [np.where(child < 0, -1, child + start) for child in (tree.left, tree.right)]
        for tree, start in zip(forest.trees, starts, strict=False)
    ]
    return {
        "tree_starts": starts,
        "condition": np.concatenate(of_trees),
        "left": np.concatenate([m[0] for m in moved]),
        "right": np.concatenate([m[1] for m in moved]),
        "value": np.concatenate([tree.value for tree in forest.trees]).astype(np.int64),
        "first_output": np.array([tree.first_output for tree in forest.trees]),
        "n_outputs": forest.n_outputs,
    }


def engine_of(forest: Forest) -> tuple[ConditionEncoder, ForestEngine]:
    """The native form of a forest."""
    encoder, of_trees = asked(forest)
    return encoder, ForestEngine(conditions=encoder.native, **tree_arrays(forest, of_trees))


def rows_for(forest: Forest, seed: int, n: int, dtype: str) -> np.ndarray:
    """Rows on, next to and far from the thresholds, with NaN and infinities; integers where categories are asked."""
    rng = np.random.default_rng(seed)
    thresholds = np.concatenate([tree.threshold for tree in forest.trees])
    x = rng.normal(size=(n, forest.n_features)).astype(dtype)
    on = rng.choice(thresholds, size=x.shape).astype(dtype)
    near = np.nextafter(on, rng.choice([-np.inf, np.inf], size=x.shape).astype(dtype))
    special = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-36, 1e300, -1e300, 5e-324], size=x.shape)
    with np.errstate(over="ignore"):
        special = special.astype(dtype)
    kind = rng.integers(5, size=x.shape)
    x = np.select([kind == 0, kind == 1, kind == 2], [on, near, special], x)
    integers = rng.choice([*range(42), 2**24 - 1, 2**24, -1, -5, np.nan], size=x.shape).astype(dtype)
    known = np.isin(np.arange(forest.n_features), list(forest.known_categories))
    whole = known | np.isin(np.arange(forest.n_features), categorical_features(forest))
    return np.ascontiguousarray(np.where(whole, integers, x).astype(dtype))


def categorical_features(forest: Forest) -> list[int]:
    """Features that some node asks for a category."""
    return sorted({int(f) for tree in forest.trees for f in tree.feature[tree.members >= 0]})

"""What `compile` leaves behind in a tree model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from joblib import effective_n_jobs

from fhelearn.backends.native_forest import ForestEngine
from fhelearn.estimators.compiled import CompiledModel, CompileOptions
from fhelearn.frontends.tree import Forest, NativeForest, QuantizedForest, native_forest
from fhelearn.ir import Program
from fhelearn.typing import FloatArray, IntArray


class CompiledForest(CompiledModel):
    """A quantized forest.

    Attributes
    ----------
    quantized : QuantizedForest
    """

    def __init__(self, quantized: QuantizedForest, options: CompileOptions, n_bits: Any, fitted: Sequence[Any]) -> None:
        super().__init__(options, n_bits, fitted)
        self.quantized = quantized

    @property
    def program(self) -> Program:
        """The integer program."""
        return self.quantized.program

    @property
    def forest_engine(self) -> ForestEngine:
        """The C++ forest engine, built when first used."""
        engine: ForestEngine = self._once("forest_engine", lambda: build_engine(self.quantized.native))
        return engine

    def simulate(self, x: FloatArray, *, n_jobs: int | None = None) -> IntArray:
        """Exactly what the program returns for the encoded rows, straight from the rows.

        x: floats, shape (n, n_features), as the adapter prepares them. Returns int64, shape (n, outputs).
        """
        return self.forest_engine.run(x, num_threads=None if n_jobs is None else effective_n_jobs(n_jobs))

    def scores(self, x: FloatArray, fhe: str, n_jobs: int | None = None, progress: bool | None = None) -> FloatArray:
        """Scores of prepared rows, "simulate"d or "execute"d. Returns float64, shape (n, n_outputs)."""
        self.quantized.check(x)
        if fhe == "simulate":
            return self.decode(self.simulate(x, n_jobs=n_jobs))
        return self.decode(self.execute(self.quantized.encode(x), n_jobs=n_jobs, progress=progress))

    def decode(self, q: IntArray) -> FloatArray:
        """Scores of the integers that a run returned, shape (n, n_outputs)."""
        return self.quantized.decode(q)


def build_engine(native: NativeForest) -> ForestEngine:
    """The C++ engine of a forest with integer leaves."""
    return ForestEngine(
        conditions=native.encoder.native,
        tree_starts=native.tree_starts,
        condition=native.condition,
        left=native.left,
        right=native.right,
        value=native.value,
        first_output=native.first_output,
        n_outputs=native.n_outputs,
    )


def leaves_reached(forest: Forest, x: FloatArray) -> IntArray:
    """What ``forest.apply(x)`` gives, from the C++ engine. Returns int64, shape (n, n_trees)."""
    no_values = [np.zeros(tree.value.shape, dtype=np.int64) for tree in forest.trees]
    return build_engine(native_forest(forest, no_values)).apply(x)

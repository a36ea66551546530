"""The peers that a benchmark runs beside fhelearn, on the same integers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fhelearn.ir import Program
from fhelearn.typing import IntArray


def linear_weights(program: Program) -> tuple[IntArray, IntArray]:
    """Integer weights (k, m) and constant (m,) of the linear program of a model with one matmul."""
    (product,) = [node for node in program.nodes if node.op == "matmul"]
    weights = product.array("weights")
    constant = np.zeros(weights.shape[1], dtype=np.int64)
    for node in program.nodes:
        if node.op == "add_constant":
            constant = constant + node.array("value").reshape(-1)
    return weights, constant


def input_range(program: Program) -> tuple[IntArray, IntArray]:
    """Lowest and highest integer of each input feature, both (k,)."""
    (index,) = program.inputs
    value = program.nodes[index].value
    bounds = value.bounds.broadcast(value.shape)
    return bounds.lo.astype(np.int64), bounds.hi.astype(np.int64)


def corner_rows(program: Program) -> IntArray:
    """Input rows (2 m, k) that drive each output to its extremes: a tracing compiler needs them for safe widths."""
    weights, _ = linear_weights(program)
    lo, hi = input_range(program)
    low = np.where(weights.T > 0, lo, hi)
    return np.concatenate([low, lo + hi - low])


def tracing_front_end(program: Program, p_error: float) -> Any:
    """Compile the same linear function by concrete-python's own front end (`concrete.fhe.Compiler`)."""
    from fhelearn.backends.concrete import runtime

    runtime.load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from concrete import fhe
    weights, constant = linear_weights(program)

    def score(x: Any) -> Any:
        return x @ weights + constant

    configuration = fhe.Configuration(p_error=p_error, compress_input_ciphertexts=True, compress_evaluation_keys=True)
    return fhe.Compiler(score, {"x": "encrypted"}).compile(list(corner_rows(program)), configuration)


def tracing_forest(program: Program, rows: IntArray, p_error: float) -> Any:
    """Compile the lookups of a forest by concrete-python's own front end, which takes widths from `rows`.

    The program is gather, concatenate with 1, matmul (indices), table_lookup, matmul (one sum), as the tree front end
    emits it for a forest of one block.
    """
    from fhelearn.backends.concrete import runtime

    runtime.load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from concrete import fhe
    by_op = {node.op: node for node in program.nodes if node.name != "scores"}
    columns = by_op["gather"].array("indices")
    weights, tables = by_op["matmul"].array("weights"), by_op["table_lookup"].array("table")
    width = int(np.ceil(np.log2(tables.shape[1])))
    padded = np.pad(tables, ((0, 0), (0, 2**width - tables.shape[1])), mode="edge")
    lookup = fhe.LookupTable([fhe.LookupTable(table.tolist()) for table in padded])

    def score(x: Any) -> Any:
        return np.sum(lookup[x[columns] @ weights[:-1] + weights[-1]])

    configuration = fhe.Configuration(p_error=p_error, compress_input_ciphertexts=True, compress_evaluation_keys=True)
    return fhe.Compiler(score, {"x": "encrypted"}).compile(list(rows), configuration)

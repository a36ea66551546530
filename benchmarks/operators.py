"""`python -m benchmarks.operators`: how many of the ONNX project's node tests each operator passes, into README.md."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

from benchmarks.render import ROOT, replace
from fhelearn.backends.concrete import is_available
from tests.python.fhe.test_onnx_nodes import assert_execution_equals_the_engine
from tests.python.onnx_node_tests import CLAIMED, NodeTest
from tests.python.onnx_nodes.cases import AT_THE_CLIENT, WITHOUT_DATA, Case, single_node_tests, variants
from tests.python.onnx_nodes.laws import (
    Quantized,
    assert_forward_as_recorded,
    assert_near_the_float_model,
    cleaned,
    settings,
)

_HEAD = """\
| operator | forward | quantized | executed |
|---|---|---|---|
"""
_FOOT = """
Node tests of the ONNX project whose model is that operator. *Forward*: the NumPy forward gives the recorded outputs.
*Quantized*: some variant of encrypted inputs, at 8 bits, with proved and with calibrated bounds, comes as near to the
float model as the scales allow, and engine and reference agree bit for bit. *Executed*: a small one of them gives on
ciphertexts exactly what the engine says ("client": it is cut off the model's end and computed after decryption).
"""


def table() -> str:
    """The table in Markdown; runs everything, encrypted executions included (some minutes)."""
    return _HEAD + "".join(_row(op_type) for op_type in sorted(CLAIMED)) + _FOOT


def _row(op_type: str) -> str:
    tests = [test for test in single_node_tests() if test.model.graph.node[0].op_type == op_type]
    counts = [sum(map(passes, tests)) for passes in (_forward_passes, _quantized_passes)]
    encrypted = "-" if op_type in WITHOUT_DATA else f"{counts[1]} of {len(tests)}"
    return f"| {op_type} | {counts[0]} of {len(tests)} | {encrypted} | {_executed(op_type)} |\n"


def _forward_passes(test: NodeTest) -> bool:
    return _holds(lambda: assert_forward_as_recorded(test))


def _quantized_passes(test: NodeTest) -> bool:
    def law(case: Case, bounds: str) -> None:
        assert_near_the_float_model(Quantized.of(case, cleaned(case), settings(8, bounds=bounds)))

    return any(
        all(_holds(partial(law, case, bounds)) for bounds in ("proved", "calibrated")) for case in variants(test)
    )


def _executed(op_type: str) -> str:
    if op_type in WITHOUT_DATA or not is_available():
        return "-"
    if not _holds(lambda: assert_execution_equals_the_engine(op_type)):
        return "no"
    return "client" if op_type in AT_THE_CLIENT else "yes"


def _holds(law: Callable[[], object]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            law()
        except Exception:  # whatever goes wrong, the test does not pass
            return False
    return True


if __name__ == "__main__":
    replace(ROOT / "README.md", "operators", table())

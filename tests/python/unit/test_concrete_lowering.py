"""Program -> MLIR text: widths, tables, rounding, and errors that name the node. Nothing is compiled."""

import re

import numpy as np
import pytest

from fhelearn.backends.concrete.independence import refreshed_rounds
from fhelearn.backends.concrete.lowering import LoweredProgram, lower, messages, normalize
from fhelearn.backends.concrete.lowering_rules import RULES
from fhelearn.backends.concrete.mlir import Wire, dense
from fhelearn.exceptions import LoweringError
from fhelearn.ir import OPS, Program, ProgramBuilder, region_widths
from fhelearn.testing import random_program


def lowered(program: Program, batch_size: int = 1) -> LoweredProgram:
    return lower(normalize(program), batch_size)


def lookup(lo: int, hi: int, table: np.ndarray, table_lo: int) -> Program:
    b = ProgramBuilder()
    x = b.emit("input", shape=(2,), lo=lo, hi=hi)
    return b.build(b.emit("table_lookup", x, lo=table_lo, table=table))


def table_in(text: str) -> np.ndarray:
    found = re.search(r'dense<"0x([0-9a-f]+)"> : tensor<\d+xi64>', text)
    assert found is not None
    return np.frombuffer(bytes.fromhex(found[1]), dtype="<i8")


def test_every_op_but_products_has_a_rule() -> None:
    assert set(RULES) == set(OPS) - {"input", "multiply", "maximum"}


def test_every_value_of_a_region_has_its_width() -> None:
    b = ProgramBuilder()
    x = b.emit("input", shape=(3,), lo=0, hi=3)
    program = b.build(b.emit("matmul", x, weights=np.array([[5], [-5], [9]])))
    assert region_widths(program)[0].bit_width == 7
    text = lowered(program).mlir
    assert set(re.findall(r"!FHE\.\w+<\d+>", text)) == {"!FHE.esint<7>"}


def test_signed_tables_are_in_twos_complement_order_with_edges_repeated() -> None:
    text = lowered(lookup(-3, 2, np.array([10, 11, 12, 13, 14, 15]), -3)).mlir
    assert table_in(text).tolist() == [13, 14, 15, 15, 10, 10, 11, 12]  # 0, 1, 2, 3, -4, -3, -2, -1


def test_unsigned_tables_start_at_zero_with_edges_repeated() -> None:
    text = lowered(lookup(2, 5, np.array([1, 2, 3, 4]), 2)).mlir
    assert table_in(text).tolist() == [1, 1, 1, 2, 3, 4, 4, 4]


def test_messages_are_listed_as_tables_are_read() -> None:
    assert messages(Wire("", (1,), 2, False)).tolist() == [0, 1, 2, 3]
    assert messages(Wire("", (1,), 2, True)).tolist() == [0, 1, -2, -1]


def test_tables_behind_rounding_have_the_narrow_width_and_stride() -> None:
    b = ProgramBuilder()
    x = b.emit("input", shape=(2,), lo=-16, hi=11)
    y = b.emit("round", x, lsbs=2, method="exact")
    result = lowered(b.build(b.emit("table_lookup", y, lo=-16, table=np.arange(100, 129))))
    assert "!FHE.esint<3>" in result.mlir
    assert table_in(result.mlir).tolist() == [116, 120, 124, 128, 100, 104, 108, 112]
    assert dict(result.lookups_by_bit_width) == {3: 2, 4: 2, 5: 2}


def test_equal_tables_are_emitted_once() -> None:
    table = np.array([[0, 1], [1, 0], [0, 1]])
    b = ProgramBuilder()
    x = b.emit("input", shape=(3,), lo=0, hi=1)
    text = lowered(b.build(b.emit("table_lookup", x, lo=0, table=table))).mlir
    assert "tensor<2x2xi64>" in text
    same = b.build(b.emit("table_lookup", x, lo=0, table=table[:1].repeat(3, axis=0)))
    assert "apply_mapped_lookup_table" not in lowered(same).mlir


def test_batched_and_single_functions_are_made_together() -> None:
    result = lowered(lookup(0, 3, np.arange(4), 0), batch_size=8)
    assert result.mlir.count("func.func") == 2
    assert "@main_batch(%arg0: tensor<8x2x!FHE.eint<2>>)" in result.mlir
    assert result.num_lookups == 2


def test_equal_outputs_are_computed_once() -> None:
    b = ProgramBuilder()
    x = b.emit("input", shape=(2,), lo=0, hi=3)
    y = b.emit("negate", x)
    assert lowered(b.build(y, x, y)).results == (0, 1, 0)


def test_rounded_outputs_are_scaled_after_decryption() -> None:
    b = ProgramBuilder()
    x = b.emit("input", shape=(2,), lo=0, hi=11)
    assert lowered(b.build(b.emit("round", x, lsbs=2, method="exact"), x)).shifts == (2, 0)


def test_rounds_are_refreshed_where_their_operand_would_be_added_to_itself() -> None:
    refreshed = {}
    for op, with_operand, attributes in (
        ("add_constant", False, {"value": np.array(1)}),
        ("sum", False, {"axes": (0,), "keepdims": False}),
        ("add", True, {}),
    ):
        b = ProgramBuilder()
        x = b.emit("input", shape=(2,), lo=0, hi=11)
        y = b.emit("round", x, lsbs=2, method="exact")
        refreshed[op] = refreshed_rounds(b.build(b.emit(op, *((y, x) if with_operand else (y,)), **attributes)))
    assert refreshed == {"add_constant": set(), "sum": set(), "add": {1}}


def test_rounds_of_mixed_values_are_refreshed_before_they_are_mixed_again() -> None:
    b = ProgramBuilder()
    x = b.emit("input", shape=(2,), lo=0, hi=3)
    mixed = b.emit("matmul", x, weights=np.array([[1, 2], [3, 1]]))
    rounded = b.emit("round", mixed, lsbs=1, method="exact")
    assert refreshed_rounds(b.build(b.emit("sum", rounded, axes=(0,), keepdims=False))) == {rounded}


def test_wide_lookups_name_the_node_and_the_remedy() -> None:
    program = lookup(0, 2**17 - 1, np.arange(2**17), 0)
    with pytest.raises(LoweringError, match=r"%1 table_lookup: looks up 17-bit values.*round the operand"):
        lowered(program)


def test_wide_exact_rounding_names_the_node_and_the_remedy() -> None:
    b = ProgramBuilder()
    x = b.emit("input", shape=(1,), lo=0, hi=2**20)
    with pytest.raises(LoweringError, match=r"rounds 21-bit values exactly.*approximate"):
        lowered(b.build(b.emit("round", x, lsbs=3, method="exact")))


@pytest.mark.parametrize(
    ("entries", "kind"), [([1, -128], "i8"), ([128], "i16"), ([-(2**31)], "i32"), ([2**31], "i33")]
)
def test_clear_constants_get_the_narrowest_type(entries: list[int], kind: str) -> None:
    assert dense(np.array(entries))[1] == f"tensor<{len(entries)}x{kind}>"


def test_clear_constants_beyond_63_bits_are_refused() -> None:
    with pytest.raises(OverflowError, match="63 bits"):
        dense(np.array([-(2**63)]))


@pytest.mark.parametrize("seed", range(60))
def test_lowering_is_deterministic_and_covers_random_programs(seed: int) -> None:
    program = random_program(np.random.default_rng(seed), small=True)
    first, second = lowered(program, 4), lowered(program, 4)
    assert first.mlir == second.mlir
    assert len(first.results) == len(program.outputs)


def test_names_cannot_inject_text() -> None:
    b = ProgramBuilder()
    x = b.emit("input", shape=(1,), lo=0, hi=1, name='"} loc(')
    program = b.build(b.emit("negate", x, name='evil") : () -> ()'))
    assert "evil" not in lowered(program).mlir

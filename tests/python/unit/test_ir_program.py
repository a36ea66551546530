"""Text form, declared bounds, overflow, faults, regions and cost."""

import dataclasses
import math
from types import MappingProxyType

import numpy as np
import pytest

from fhelearn.backends.native import NativeEngine
from fhelearn.exceptions import AccumulatorOverflowError, InputRangeError, ProgramError
from fhelearn.ir import (
    Bounds,
    DeclaredBounds,
    Faults,
    Program,
    ProgramBuilder,
    Value,
    cost,
    evaluate,
    may_overflow,
    region_widths,
    verify,
)


def two_layers(declared: DeclaredBounds | None = None) -> Program:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(3,), lo=0, hi=3)
    y = builder.emit("matmul", x, weights=np.array([[1, -1], [1, 1], [1, -1]]), name="fc1", declared=declared)
    table = np.array([v * v % 7 - 3 for v in range(-6, 10)])
    return builder.build(builder.emit("table_lookup", y, lo=-6, table=table))


def test_the_text_form_is_for_people() -> None:
    assert str(two_layers()) == (
        "%0: u2[3] in [0, 3] = input()\n"
        "%1: i5[2] in [-6, 9] = matmul(%0) weights=(3, 2)  # fc1\n"
        "%2: i3[2] in [-3, 1] = table_lookup(%1) lo=-6 table=(16,)\n"
        "return %2"
    )
    calibrated = two_layers(DeclaredBounds(-2, 5, "calibrated", "seen on 7 rows"))
    assert "%1: i4[2] in [-2, 5] calibrated = matmul(%0) weights=(3, 2)  # fc1; seen on 7 rows\n" in str(calibrated)


def test_equal_programs_have_equal_digests_and_others_do_not() -> None:
    assert two_layers() == two_layers()
    assert two_layers() != two_layers(DeclaredBounds(-2, 5, "calibrated", "seen on 7 rows"))
    assert len({two_layers(), two_layers()}) == 1


def test_uniform_input_bounds_are_stored_one_way() -> None:
    programs = []
    for lo, hi in ((0, 3), (np.zeros(3, np.int8), np.full((1,), 3)), ([0, 0, 0], 3)):
        builder = ProgramBuilder()
        programs.append(builder.build(builder.emit("input", shape=(3,), lo=np.asarray(lo), hi=np.asarray(hi))))
    with pytest.raises(ProgramError, match="lo must be an integer or an integer array"):
        ProgramBuilder().emit("input", shape=(3,), lo="0", hi=3)
    assert programs[0] == programs[1] == programs[2]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (DeclaredBounds(10, 12, "calibrated", "why"), "10 to 12 do not meet the inferred"),
        (DeclaredBounds([-6, 5], [9, 5], "structural", "why"), "in every element"),
        (DeclaredBounds(0, 5, "proved", "why"), "'structural' or 'calibrated'"),
        (DeclaredBounds(0, 5, "structural", " "), "reason of one line"),
        (DeclaredBounds(0, 5, "structural", "two\nlines"), "printable characters on one line"),
        (DeclaredBounds(0, 5, "structural", "two\u2028lines"), "printable characters on one line"),
    ],
)
def test_declared_bounds_meet_the_inferred_ones_and_give_a_reason(declared: DeclaredBounds, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        two_layers(declared)


def test_a_value_has_what_declared_and_inferred_bounds_both_allow() -> None:
    value = two_layers(DeclaredBounds(-2, 5, "calibrated", "why")).nodes[1].value
    assert value.bounds == Bounds.of([0, -2], [5, 3])
    assert value.provenance == "calibrated"
    assert two_layers(DeclaredBounds(-100, 100, "structural", "adds nothing")) == two_layers()


def test_verify_finds_what_was_tampered_with() -> None:
    program = two_layers()
    verify(program)
    source, middle, last = program.nodes
    wider = dataclasses.replace(middle, value=Value((2,), Bounds.of(-6, 10)))
    cases = {
        "%1 matmul 'fc1': stored shape or bounds differ": (source, wider, last),
        r"%1 matmul 'fc1': operands \(2,\) must be earlier": (source, dataclasses.replace(middle, operands=(2,)), last),
        "%2 table_lookup: attributes must be in alphabetical order": (
            source,
            middle,
            dataclasses.replace(
                last, attributes=MappingProxyType({name: last.attributes[name] for name in ("table", "lo")})
            ),
        ),
        "%1 matmul 'fc1': bounds are said to be structural, but": (
            source,
            dataclasses.replace(middle, value=dataclasses.replace(middle.value, provenance="structural", reason="x")),
            last,
        ),
        "%1 matmul 'fc1': attributes must be": (source, dataclasses.replace(middle, attributes={}), last),
    }
    for message, nodes in cases.items():
        with pytest.raises(ProgramError, match=message):
            verify(Program(nodes, program.outputs))


def test_bad_inputs_are_named() -> None:
    program, good = two_layers(), np.zeros((2, 3), np.int64)
    bad = good.copy()
    bad[1, 2] = 4
    for inputs, message in (
        ([], "takes 1 inputs, got 0"),
        ([good.astype(np.float64)], "must be an int64 array, got float64"),
        ([[0, 0, 0]], "must be an int64 array, got list"),
        ([good[:, :2]], r"must have shape \(n, 3\), got \(2, 2\)"),
        ([bad], r"input 0: row 1, element \(2,\) is 4, allowed is \[0, 3\]"),
    ):
        with pytest.raises(InputRangeError, match=message):
            evaluate(program, inputs)


def test_overflow_of_calibrated_bounds_is_an_error_that_counts_rows() -> None:
    program = two_layers(DeclaredBounds(-2, 5, "calibrated", "seen on 7 rows"))
    rows = np.array([[0, 0, 0], [3, 3, 3], [3, 0, 3]])
    with pytest.raises(AccumulatorOverflowError, match=r"'fc1': 2 of 3 rows leave .* \(first row 1, worst value 9"):
        evaluate(program, [rows])
    assert may_overflow(program) == (False, True, True)


def test_overflow_wraps_through_the_padding_bit() -> None:
    """By hand: the region is i4, so 9 has the code 9 + 8 = 17 = 16 + 1; it reads -(table at 1 - 8, clipped to -6)."""
    program = two_layers(DeclaredBounds(-6, 5, "calibrated", "seen on 7 rows"))
    assert region_widths(program)[1] == (4, True)
    table = program.nodes[2].array("table")
    (wrapped,) = evaluate(program, [np.array([[3, 3, 3]])], on_overflow="wrap")
    assert wrapped.tolist() == [[-table[0], table[-3 + 6]]]


@pytest.mark.parametrize(
    ("lo", "messages", "expected"),
    [
        (0, [1, 3, 4, 5, 7, 8, 9], [4, 12, 16, 20, 28, 0, 4]),
        (-8, [1, 3, 4, 5, 7, -1, -5], [4, -4, -16, -12, -4, -4, -4]),
    ],
)
def test_a_wrapped_output_shows_its_padding_bit(lo: int, messages: list[int], expected: list[int]) -> None:
    """Five bits of ``4 x`` come back, as measured on ciphertexts; a signed message has a sign of its own."""
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(1,), lo=lo, hi=lo + 15)
    claim = DeclaredBounds(lo, lo + 15, "calibrated", "too tame")
    program = builder.build(builder.emit("multiply_constant", x, value=np.array([4]), declared=claim))
    assert region_widths(program)[0].bit_width == 4
    rows = np.array(messages)[:, np.newaxis]
    for run in (evaluate(program, [rows], on_overflow="wrap"), NativeEngine(program).run([rows], on_overflow="wrap")):
        assert run[0][:, 0].tolist() == expected


def test_a_table_may_extend_past_the_last_integer() -> None:
    builder = ProgramBuilder()
    top = 2**63 - 4
    x = builder.emit("input", shape=(4,), lo=top, hi=2**63 - 1)
    y = builder.emit("input", shape=(1,), lo=0, hi=7)
    builder.emit("negate", y, declared=DeclaredBounds(-3, 0, "calibrated", "seen"))
    program = builder.build(builder.emit("table_lookup", x, lo=top, table=np.array([0, 1, 2, 3, 4, 5, 6, 7])))
    rows = [top + np.arange(4)[np.newaxis], np.zeros((1, 1), np.int64)]
    for mode in ("error", "wrap"):
        for outputs in (evaluate(program, rows, on_overflow=mode), NativeEngine(program).run(rows, on_overflow=mode)):
            assert outputs[0].tolist() == [[0, 1, 2, 3]]


def test_injected_failures_do_not_trip_structural_bounds() -> None:
    """Exactly one of the two entries is non-zero; a failed lookup breaks that, and must show as a wrong answer."""
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(50,), lo=0, hi=1)
    pair = [builder.emit("table_lookup", x, lo=0, table=np.array(t)) for t in ([5, 0], [0, 5])]
    claim = DeclaredBounds(5, 5, "structural", "one of them is 5, the other 0")
    program = builder.build(builder.emit("add", *pair, declared=claim))
    rows = np.zeros((40, 50), np.int64)
    assert (evaluate(program, [rows])[0] == 5).all()
    faults = Faults(p_error=0.3, seed=1)
    (noisy,) = evaluate(program, [rows], faults=faults)
    assert set(np.unique(noisy)) == {0, 5, 10}
    np.testing.assert_array_equal(NativeEngine(program).run([rows], faults=faults)[0], noisy)


def test_structural_bounds_are_checked_in_both_modes() -> None:
    program = two_layers(DeclaredBounds(-2, 5, "structural", "not true"))
    for mode in ("error", "wrap"):
        with pytest.raises(AccumulatorOverflowError, match="structural bounds"):
            evaluate(program, [np.array([[3, 3, 3]])], on_overflow=mode)


def test_products_of_calibrated_values_do_not_wrap_before_they_are_expanded() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(2,), lo=0, hi=7)
    y = builder.emit("negate", x, declared=DeclaredBounds(-4, 0, "calibrated", "seen"))
    program = builder.build(builder.emit("multiply", x, y))
    with pytest.raises(ProgramError, match="expand_products"):
        evaluate(program, [np.zeros((1, 2), np.int64)], on_overflow="wrap")
    with pytest.raises(ValueError, match="on_overflow must be 'error' or 'wrap', got 'clip'"):
        evaluate(program, [np.zeros((1, 2), np.int64)], on_overflow="clip")  # type: ignore[arg-type]


def identity_lookup(size: int) -> Program:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(100,), lo=0, hi=size - 1)
    return builder.build(builder.emit("table_lookup", x, lo=0, table=np.arange(size)))


def test_failed_lookups_of_rounded_values_read_a_neighbouring_step() -> None:
    """The encoding has no low bits any more, wherever static ops move the elements."""
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(4,), lo=0, hi=255)
    rounded = builder.emit("round", x, lsbs=4, method="exact")
    moved = builder.emit("gather", builder.emit("reshape", rounded, shape=(4,)), axis=0, indices=np.array([3, 1, 0]))
    padded = builder.emit("pad", moved, before=(0,), after=(1,), value=0)
    table = np.arange(257)
    program = builder.build(
        builder.emit("table_lookup", padded, lo=0, table=table), builder.emit("table_lookup", x, lo=0, table=table)
    )
    rows = np.random.default_rng(0).integers(20, 230, size=(500, 4))
    after, before = evaluate(program, [rows], faults=Faults(p_error=0.5, seed=1))
    expected = np.pad(np.bitwise_and(rows[:, [3, 1, 0]] + 8, ~15), ((0, 0), (0, 1)))
    assert set(np.unique(after[:, :3] - expected[:, :3])) == {-16, 0, 16}
    assert set(np.unique(before - rows)) == {-1, 0, 1}


def test_failed_lookups_read_a_neighbour_at_the_stated_rate() -> None:
    program, x = identity_lookup(1000), np.full((2000, 100), 500, np.int64)
    (y,) = evaluate(program, [x], faults=Faults(p_error=0.1, seed=3))
    moved = y - x
    assert set(np.unique(moved)) == {-1, 0, 1}
    count, expected, deviation = np.count_nonzero(moved), 20000, np.sqrt(200000 * 0.1 * 0.9)
    assert abs(count - expected) < 5 * deviation  # five standard deviations of the binomial law
    assert abs(int(moved.sum())) < 5 * np.sqrt(expected)
    (again,) = evaluate(program, [x], faults=Faults(p_error=0.1, seed=3))
    np.testing.assert_array_equal(y, again)
    (other,) = evaluate(program, [x], faults=Faults(p_error=0.1, seed=4))
    assert (other != y).any()


def test_approximate_rounding_noise_has_the_stated_deviation() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(1000,), lo=0, hi=1023)
    program = builder.build(builder.emit("round", x, lsbs=8, method="approximate"))
    rows = np.full((200, 1000), 128 + 32, np.int64)  # an eighth of a step above the tie
    (y,) = evaluate(program, [rows], faults=Faults(rounding_noise=0.125, seed=1))
    assert set(np.unique(y)) == {0, 256}
    # the chance that twelve uniforms sum to less than 5: one deviation below their mean (Irwin-Hall distribution)
    share = sum((-1) ** k * math.comb(12, k) * (5 - k) ** 12 for k in range(6)) / math.factorial(12)
    down = np.count_nonzero(y == 0)
    assert abs(down - share * y.size) < 5 * np.sqrt(y.size * share * (1 - share))  # five deviations
    (clean,) = evaluate(program, [rows])
    assert (clean == 256).all()
    multiples = np.full((200, 1000), 256, np.int64)
    np.testing.assert_array_equal(evaluate(program, [multiples], faults=Faults(rounding_noise=0.4))[0], multiples)


@pytest.mark.parametrize(
    "faults", [{"p_error": 1.0}, {"p_error": -0.1}, {"rounding_noise": -1.0}, {"seed": -1}, {"seed": 1.5}]
)
def test_faults_out_of_range_are_refused(faults: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(faults))} must be"):
        Faults(**faults)  # type: ignore[arg-type]


def test_cost_counts_lookups_by_the_width_of_their_region() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(4,), lo=0, hi=3)
    y = builder.emit("matmul", x, weights=np.ones((4, 2), np.int64))
    r = builder.emit("round", y, lsbs=2, method="exact")
    z = builder.emit("table_lookup", r, lo=0, table=np.arange(13))
    result = cost(builder.build(builder.emit("multiply", z, z)))
    assert result.lookups == {4: 2, 3: 2, 2: 2, 5: 2 * 2}  # two removed bits, what is left, a product
    assert result.total_lookups == 10
    assert result.multiply_accumulates == 8
    assert result.price == 2 * (62 + 62 + 30) + 4 * 99

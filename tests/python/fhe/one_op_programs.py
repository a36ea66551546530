"""Hand-written programs that cover every op, its corner cases, and what the lowering treats specially."""

from collections.abc import Callable

import numpy as np

from fhelearn.ir import Program, ProgramBuilder

Make = Callable[[ProgramBuilder], tuple[int, ...]]


def _x(b: ProgramBuilder, shape: tuple[int, ...] = (3,), lo: int = -4, hi: int = 3) -> int:
    return b.emit("input", shape=shape, lo=lo, hi=hi)


def _weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-3, 4, size=shape)


def _square(b: ProgramBuilder, x: int) -> int:
    """A lookup, so that what follows starts from a fresh ciphertext."""
    value = b.value(x)
    lo, hi = value.bounds.minimum, value.bounds.maximum
    return b.emit("table_lookup", x, lo=lo, table=np.arange(lo, hi + 1) ** 2 % 7)


def _per_element(b: ProgramBuilder) -> tuple[int, ...]:
    table = np.random.default_rng(0).integers(-9, 9, size=(2, 3, 8))
    return (b.emit("table_lookup", _x(b, (2, 3)), lo=-4, table=table),)


def _per_channel(b: ProgramBuilder) -> tuple[int, ...]:
    table = np.random.default_rng(0).integers(-9, 9, size=(2, 1, 1, 8))
    return (b.emit("table_lookup", _x(b, (2, 1, 2)), lo=-4, table=table),)


def _two_layers(b: ProgramBuilder) -> tuple[int, ...]:
    hidden = b.emit("matmul", _x(b, (4,), 0, 1), weights=np.clip(_weights(4, 3), -1, 1))
    return (b.emit("matmul", _square(b, hidden), weights=_weights(3, 2)),)


def _scalar(b: ProgramBuilder) -> tuple[int, ...]:
    x = _x(b, ())
    y = b.emit("add_constant", _square(b, x), value=np.array(3))
    return (b.emit("sub", y, b.emit("broadcast", b.emit("constant", value=np.array(2)), shape=())), x)


def _round(method: str, lsbs: int, then: str) -> Make:
    def make(b: ProgramBuilder) -> tuple[int, ...]:
        step = 2**lsbs if method == "approximate" else 1  # approximate rounding is exact on multiples alone
        x = b.emit("multiply_constant", _x(b, (3,), -6 // step, 5 // step), value=np.array(step))
        y = b.emit("round", x, lsbs=lsbs, method=method)
        if then == "lookup":
            return (_square(b, b.emit("reshape", y, shape=(3, 1))),)
        if then == "sum":  # adds ciphertexts that rounding shares with its operand
            return (b.emit("add", x, y), y)
        if then == "add":
            return (b.emit("add_constant", y, value=np.array([1, 2, 3])),)
        if then == "round":
            return (b.emit("round", y, lsbs=lsbs + 1, method="exact"),)
        if then == "pad":
            return (
                b.emit("pad", y, before=(1,), after=(0,), value=4),
                b.emit("pad", y, before=(0,), after=(1,), value=1),
            )
        return (y,)

    return make


def _mixed_concatenation(b: ProgramBuilder) -> tuple[int, ...]:
    x = _x(b)
    return (b.emit("concatenate", x, b.emit("round", x, lsbs=1, method="exact"), axis=0),)


def _many_pieces(b: ProgramBuilder) -> tuple[int, ...]:
    x = _x(b, (20,))
    pieces = [b.emit("slice", x, starts=(i,), stops=(i + 1,), steps=(1,)) for i in range(20)]
    return (b.emit("concatenate", *pieces[::-1], axis=0),)


def _correlated(b: ProgramBuilder) -> tuple[int, ...]:
    x = _x(b, (2,))
    for _ in range(3):
        x = b.emit("add", x, x)
    return (b.emit("matmul", b.emit("matmul", x, weights=_weights(2, 3)), weights=_weights(3, 2)),)


def _wide(b: ProgramBuilder) -> tuple[int, ...]:
    x = _x(b, (30,), -(2**15), 2**15 - 1)
    weights = np.random.default_rng(1).integers(-(2**14), 2**14, size=(30, 2))
    return (b.emit("add_constant", b.emit("matmul", x, weights=weights), value=np.array([2**33, -(2**33)])),)


def _conv(
    b: ProgramBuilder, op: str, shape: tuple[int, ...], weights: np.ndarray, **attributes: object
) -> tuple[int, ...]:
    return (b.emit(op, _x(b, shape), weights=weights, **attributes),)


PROGRAMS: dict[str, Make] = {
    "output_is_input": lambda b: (_x(b),),
    "outputs_duplicated": lambda b: (lambda x, y: (y, x, y))(_x(b), b.emit("negate", 0)),
    "no_inputs": lambda b: (b.emit("constant", value=np.array([[1, -2], [3, 0]])),),
    "no_inputs_scalar": lambda b: (b.emit("constant", value=np.array(5)),),
    "constant_and_input": lambda b: (b.emit("add", _x(b), b.emit("constant", value=np.array([1, -2, 9]))),),
    "unused_input": lambda b: (lambda x, y: (y,))(_x(b, (2,)), _x(b, (3,), 0, 5)),
    "scalar": _scalar,
    "matmul": lambda b: (b.emit("matmul", _x(b), weights=_weights(3, 2)),),
    "matmul_matrix": lambda b: (b.emit("matmul", _x(b, (2, 3)), weights=_weights(3, 2)),),
    "matmul_wide": _wide,
    "conv2d": lambda b: _conv(b, "conv2d", (2, 4, 5), _weights(2, 2, 2, 3), strides=(2, 1), dilations=(1, 2), groups=1),
    "conv2d_grouped": lambda b: _conv(
        b, "conv2d", (4, 3, 3), _weights(2, 2, 2, 2), strides=(1, 1), dilations=(1, 1), groups=2
    ),
    "conv1d": lambda b: _conv(b, "conv1d", (2, 7), _weights(3, 2, 2), strides=(2,), dilations=(2,), groups=1),
    "conv1d_grouped": lambda b: _conv(b, "conv1d", (2, 4), _weights(2, 1, 2), strides=(1,), dilations=(1,), groups=2),
    "sum_pool2d": lambda b: (b.emit("sum_pool2d", _x(b, (2, 4, 4)), kernel=(2, 3), strides=(2, 1)),),
    "add": lambda b: (b.emit("add", _x(b), _x(b, (3,), 0, 9)),),
    "sub": lambda b: (b.emit("sub", _x(b, (3,), 0, 4), _x(b, (3,), 0, 9)),),
    "negate": lambda b: (b.emit("negate", _x(b, (3,), 0, 7)),),
    "add_constant": lambda b: (b.emit("add_constant", _x(b, (2, 3)), value=np.array([-5, 0, 7])),),
    "multiply_constant": lambda b: (b.emit("multiply_constant", _x(b, (2, 3)), value=np.array([[-5], [7]])),),
    "sum": lambda b: (b.emit("sum", _x(b, (2, 3, 2)), axes=(0, 2), keepdims=False),),
    "sum_keepdims": lambda b: (b.emit("sum", _x(b, (2, 3)), axes=(1,), keepdims=True),),
    "sum_to_scalar": lambda b: (b.emit("sum", _x(b, (2, 3)), axes=(0, 1), keepdims=False),),
    "table_lookup": lambda b: (b.emit("table_lookup", _x(b), lo=-6, table=np.arange(14) * 5 % 11 - 4),),
    "table_lookup_unsigned": lambda b: (b.emit("table_lookup", _x(b, (3,), 2, 6), lo=1, table=np.arange(7) * 5 % 8),),
    "table_per_element": _per_element,
    "table_per_channel": _per_channel,
    "two_layers": _two_layers,
    "round_exact": _round("exact", 2, "output"),
    "round_exact_lookup": _round("exact", 2, "lookup"),
    "round_exact_add": _round("exact", 2, "add"),
    "round_exact_sum": _round("exact", 1, "sum"),
    "round_exact_round": _round("exact", 1, "round"),
    "round_exact_pad": _round("exact", 2, "pad"),
    "round_to_zero": lambda b: (b.emit("round", _x(b), lsbs=6, method="exact"),),
    "round_to_one_bit": lambda b: (b.emit("round", _x(b, (3,), -8, -1), lsbs=3, method="exact"),),
    "round_approximate": _round("approximate", 2, "output"),
    "round_approximate_lookup": _round("approximate", 1, "lookup"),
    "round_approximate_add": _round("approximate", 1, "add"),
    "round_approximate_sum": _round("approximate", 1, "sum"),
    "round_approximate_pad": _round("approximate", 2, "pad"),
    "multiply": lambda b: (b.emit("multiply", _x(b, (2,), -2, 1), _x(b, (2,), 0, 2)),),
    "maximum": lambda b: (b.emit("maximum", _x(b, (2,), -2, 1), _x(b, (2,), 0, 2)),),
    "reshape": lambda b: (b.emit("reshape", _x(b, (2, 3)), shape=(3, 1, 2)),),
    "transpose": lambda b: (b.emit("transpose", _x(b, (2, 3, 2)), axes=(2, 0, 1)),),
    "concatenate": lambda b: (b.emit("concatenate", _x(b, (2, 2)), _x(b, (2, 1), 0, 9), axis=1),),
    "concatenate_one": lambda b: (b.emit("concatenate", _x(b), axis=0),),
    "concatenate_rounded": _mixed_concatenation,
    "concatenate_many": _many_pieces,
    "slice": lambda b: (b.emit("slice", _x(b, (4, 5)), starts=(1, 0), stops=(4, 5), steps=(2, 3)),),
    "gather": lambda b: (b.emit("gather", _x(b, (2, 3)), axis=1, indices=np.array([2, 0, 2, 1])),),
    "pad": lambda b: (b.emit("pad", _x(b, (2, 2)), before=(1, 0), after=(0, 2), value=-3),),
    "pad_zero": lambda b: (b.emit("pad", _x(b, (2,)), before=(0,), after=(2,), value=0),),
    "broadcast": lambda b: (b.emit("broadcast", _x(b, (3, 1)), shape=(2, 3, 2)),),
    "correlated_sums": _correlated,
}


def build(name: str) -> Program:
    """The program `name`."""
    builder = ProgramBuilder()
    return builder.build(*PROGRAMS[name](builder))

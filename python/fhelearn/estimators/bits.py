"""The `n_bits` parameter."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from fhelearn.estimators.build import BitsParameter
from fhelearn.exceptions import QuantizationError
from fhelearn.frontends.linear import BitWidths
from fhelearn.frontends.tree.leaves import MAX_BITS as MAX_LEAF_BITS
from fhelearn.frontends.tree.leaves import MIN_BITS as MIN_LEAF_BITS
from fhelearn.quantization.digits import MAX_BITS as MAX_INPUT_BITS
from fhelearn.quantization.digits import MIN_BITS as MIN_INPUT_BITS
from fhelearn.quantization.uniform import MAX_BITS, MIN_BITS

KEYS = ("inputs", "weights")

LINEAR_BITS = BitsParameter(
    None,
    (Interval(Integral, MIN_BITS, MAX_BITS, closed="both"), dict, None),
    f"""
    n_bits : int or dict, default=None
        Widths of the quantized inputs and weights on the encrypted side; `fit` does not use it. None takes the widest
        that fit (about 16 bits each), an int from {MIN_BITS} to {MAX_BITS} sets both, a dict with the keys "inputs" and
        "weights" sets each. Change it before :meth:`compile`.
""",
)


def parse_n_bits(n_bits: Any) -> BitWidths | None:
    """Widths that `n_bits` asks for.

    Parameters
    ----------
    n_bits : None, int or dict
        None for the widest that fit, an int from 2 to 16 for inputs and weights alike, or a dict with the keys
        "inputs" and "weights".

    Raises
    ------
    QuantizationError
        Naming the key, the value met and what is allowed.
    """
    if n_bits is None:
        return None
    if not isinstance(n_bits, dict):
        width = _width("n_bits", n_bits)
        return BitWidths(width, width)
    if set(n_bits) != set(KEYS):
        raise QuantizationError(f"n_bits: a dict must have the keys {list(KEYS)}, got {sorted(n_bits, key=str)}")
    return BitWidths(*(_width(f"n_bits[{key!r}]", n_bits[key]) for key in KEYS))


def same_n_bits(first: Any, second: Any) -> bool:
    """Whether both ask for the same widths, in whatever form; a form that is not allowed asks for none."""
    try:
        return parse_n_bits(first) == parse_n_bits(second)
    except QuantizationError:
        return False


def _width(name: str, value: Any) -> int:
    if not _is_int(value) or not MIN_BITS <= value <= MAX_BITS:
        raise QuantizationError(
            f"{name} must be an int from {MIN_BITS} to {MAX_BITS}, got {value!r}; None means the widest that fit"
        )
    return int(value)


@dataclass(frozen=True)
class ForestBits:
    """Widths that the `n_bits` of a tree model asks for.

    `leaves` None means the fewest that change no label on the data of `compile`. `inputs` are those of uniform grids
    and digits.
    """

    leaves: int | None
    inputs: int


FOREST_BITS = BitsParameter(
    8,
    (Interval(Integral, MIN_LEAF_BITS, MAX_LEAF_BITS, closed="both"), StrOptions({"auto"}), dict),
    f"""
    n_bits : int, "auto" or dict, default=8
        Bits of quantized leaf values on the encrypted side, {MIN_LEAF_BITS} to {MAX_LEAF_BITS}; `fit` does not use it.
        "auto" takes the fewest that change no label on the data given to :meth:`compile`. A dict may have the keys
        "leaves" (an int or "auto") and "inputs", the bits of features with ``grid="uniform"`` or
        ``encoding="digits"``, {MIN_INPUT_BITS} to {MAX_INPUT_BITS}; both are 8 if not given. Change it before
        :meth:`compile`.
""",
)


def parse_forest_bits(n_bits: Any) -> ForestBits:
    """Widths that the `n_bits` of a tree model asks for.

    Parameters
    ----------
    n_bits : int, "auto" or dict
        As the estimators document it.

    Raises
    ------
    QuantizationError
        Naming the key, the value met and what is allowed.
    """
    if not isinstance(n_bits, dict):
        return ForestBits(_leaf_bits("n_bits", n_bits), MAX_INPUT_BITS)
    if not n_bits or not set(n_bits) <= {"leaves", "inputs"}:
        raise QuantizationError(
            f"n_bits: a dict must have the keys 'leaves' or 'inputs' or both, got {sorted(n_bits, key=str)}"
        )
    inputs = n_bits.get("inputs", MAX_INPUT_BITS)
    if not _is_int(inputs) or not MIN_INPUT_BITS <= inputs <= MAX_INPUT_BITS:
        raise QuantizationError(
            f"n_bits['inputs'] must be an int from {MIN_INPUT_BITS} to {MAX_INPUT_BITS}, got {inputs!r}"
        )
    return ForestBits(_leaf_bits("n_bits['leaves']", n_bits.get("leaves", FOREST_BITS.default)), int(inputs))


def same_forest_bits(first: Any, second: Any) -> bool:
    """Whether both ask for the same widths, in whatever form; a form that is not allowed asks for none."""
    try:
        return parse_forest_bits(first) == parse_forest_bits(second)
    except QuantizationError:
        return False


def _leaf_bits(name: str, value: Any) -> int | None:
    if isinstance(value, str) and value == "auto":
        return None
    if not _is_int(value) or not MIN_LEAF_BITS <= value <= MAX_LEAF_BITS:
        raise QuantizationError(
            f'{name} must be an int from {MIN_LEAF_BITS} to {MAX_LEAF_BITS} or "auto", got {value!r}'
        )
    return int(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)

"""The `n_bits` parameter."""

from __future__ import annotations

from typing import Any

import numpy as np

from fhelearn.exceptions import QuantizationError
from fhelearn.frontends.linear import BitWidths
from fhelearn.quantization.uniform import MAX_BITS, MIN_BITS

KEYS = ("inputs", "weights")


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
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not MIN_BITS <= value <= MAX_BITS:
        raise QuantizationError(
            f"{name} must be an int from {MIN_BITS} to {MAX_BITS}, got {value!r}; None means the widest that fit"
        )
    return int(value)

"""What a user may choose about an encrypted circuit."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Strategy: TypeAlias = Literal["auto", "mono", "multi"]

DEFAULT_P_ERROR = 2.0**-40
SMALLEST_P_ERROR = 2.0**-128
"""Far below anything with parameters; at 0.0 the optimizer aborts its process."""
CAREFUL_P_ERROR = 0.01
"""Larger probabilities are accepted with a warning: results are visibly wrong now and then."""
LARGEST_BATCH = 4096


@dataclass(frozen=True)
class CircuitOptions:
    """Choices that fix, together with the program, everything about a circuit.

    Parameters
    ----------
    p_error : float, optional
        Probability, in [2**-128, 1), that one table lookup (or the decoding of one output) goes wrong.
        Default: 2**-40, unless `global_p_error` is given. It is a bound that parameters are chosen by: near 1, circuits
        without lookups decrypt to noise, and what is decrypted of others may be any value.
    global_p_error : float, optional
        Probability, in [2**-128, 1), that one row's result is wrong in any of its lookups or decoded outputs. Not
        together with `p_error`.
    security_level : {128, 132}, default=128
        Bits of security against known attacks.
    batch_size : int, optional
        Rows that one call of the batched function takes, in [1, 4096]; 1 makes no batched function. Default: chosen
        from the program (see :func:`fhelearn.backends.concrete.plan.choose_batch_size`).
    strategy : {"auto", "mono", "multi"}, default="auto"
        One set of cryptographic parameters, several, or whichever prices lower
        (see :func:`fhelearn.backends.concrete.compilation.compile_cheapest`).
    clear_inputs : tuple of int, default=()
        Positions of program inputs that are not encrypted: the server reads them. Sums and products with encrypted
        values are allowed; a lookup of clear values alone is not.

    Raises
    ------
    ValueError
        If a value is outside its range, or both error probabilities are given.
    TypeError
        If a value has the wrong type.

    Warns
    -----
    UserWarning
        If an error probability is above 0.01.
    """

    p_error: float | None = None
    global_p_error: float | None = None
    security_level: int = 128
    batch_size: int | None = None
    strategy: Strategy = "auto"
    clear_inputs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.p_error is not None and self.global_p_error is not None:
            raise ValueError(
                f"give p_error (per lookup) or global_p_error (per row), not both: got p_error={self.p_error}, "
                f"global_p_error={self.global_p_error}"
            )
        for name in ("p_error", "global_p_error"):
            _check_probability(name, getattr(self, name))
        for name, value in (("security_level", self.security_level), ("batch_size", self.batch_size)):
            if not (type(value) is int or (name == "batch_size" and value is None)):
                raise TypeError(f"{name} must be an int, got {value!r} ({type(value).__name__})")
        if not isinstance(self.strategy, str):
            raise TypeError(f"strategy must be a str, got {type(self.strategy).__name__}")
        if self.security_level not in (128, 132):
            raise ValueError(f"security_level must be 128 or 132, got {self.security_level!r}")
        size = self.batch_size
        if size is not None and not 1 <= size <= LARGEST_BATCH:
            raise ValueError(f"batch_size must be in [1, {LARGEST_BATCH}], got {size}")
        if self.strategy not in ("auto", "mono", "multi"):
            raise ValueError(f"strategy must be 'auto', 'mono' or 'multi', got {self.strategy!r}")
        object.__setattr__(self, "clear_inputs", _positions(self.clear_inputs))

    def lookup_p_error(self, decisions_per_row: int) -> float:
        """Error probability per lookup.

        Parameters
        ----------
        decisions_per_row : int
            Lookups and decoded outputs of one row, >= 0: what `global_p_error` is shared among.
        """
        if self.p_error is not None:
            return self.p_error
        if self.global_p_error is None:
            return DEFAULT_P_ERROR
        share = -math.expm1(math.log1p(-self.global_p_error) / max(decisions_per_row, 1))
        return max(share, SMALLEST_P_ERROR)

    def as_dict(self) -> dict[str, Any]:
        """The choices as JSON-compatible values; ``CircuitOptions(**d)`` restores them."""
        return asdict(self)


def _positions(value: Any) -> tuple[int, ...]:
    given = tuple(value) if isinstance(value, list | tuple) else value
    if not isinstance(given, tuple) or any(type(v) is not int for v in given):
        raise TypeError(f"clear_inputs must be a tuple of int, got {value!r}")
    if any(v < 0 for v in given) or len(set(given)) != len(given):
        raise ValueError(f"clear_inputs must be different positions of inputs, counted from 0, got {value!r}")
    return tuple(sorted(given))


def _check_probability(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, float | int):
        raise TypeError(f"{name} must be a float or None, got {type(value).__name__}")
    if not SMALLEST_P_ERROR <= value < 1:
        raise ValueError(f"{name} must be in [2**-128, 1), got {value}; the default is 2**-40 per lookup")
    if value > CAREFUL_P_ERROR:
        warnings.warn(
            f"{name}={value} lets results be wrong more often than once in a hundred times, by any amount; give "
            f"{CAREFUL_P_ERROR} or less, or nothing for 2**-40 per lookup",
            UserWarning,
            stacklevel=4,  # past __post_init__ and the generated __init__
        )

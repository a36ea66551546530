"""What the user decides about quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from fhelearn.exceptions import QuantizationError
from fhelearn.quantization.grids import ObserverName

RoundingMethod: TypeAlias = Literal["exact", "approximate"]
BoundsMode: TypeAlias = Literal["calibrated", "proved"]
Granularity: TypeAlias = Literal["per_tensor", "per_channel"]

_BIT_KEYS = ("model_inputs", "op_inputs", "op_weights", "model_outputs")
WIDEST_LOOKUP = 16
"""Widest accumulator that a lookup can read when encrypted."""


@dataclass(frozen=True)
class NBits:
    """Bits of the model's inputs, of the operands of linear operators, of their weights, and of nonlinear outputs."""

    model_inputs: int
    op_inputs: int
    op_weights: int
    model_outputs: int

    @classmethod
    def of(cls, n_bits: int | Mapping[str, int]) -> NBits:
        """From an int, or a mapping with some of the fields' names.

        An int is the width of operands and weights; inputs and outputs of the model get it too, but at least 5 bits.

        Raises
        ------
        QuantizationError
            If a key is unknown, a width is no int from 1 (weights: 2) to 16, or "op_inputs" or "op_weights" is missing.
        """
        given = dict(n_bits) if isinstance(n_bits, Mapping) else {"op_inputs": n_bits, "op_weights": n_bits}
        unknown = sorted(set(given) - set(_BIT_KEYS))
        if unknown or not {"op_inputs", "op_weights"} <= set(given):
            raise QuantizationError(
                f"n_bits must be an int, or a dict with 'op_inputs' and 'op_weights' (and 'model_inputs', "
                f"'model_outputs' if wanted), got {n_bits!r}"
            )
        for key, bits in given.items():
            low = 2 if key == "op_weights" else 1
            if isinstance(bits, bool) or not isinstance(bits, int) or not low <= bits <= WIDEST_LOOKUP:
                raise QuantizationError(f"n_bits: {key} must be an int from {low} to {WIDEST_LOOKUP}, got {bits!r}")
        rim = max(5, given["op_inputs"])
        return cls(**{"model_inputs": rim, "model_outputs": rim, **given})


@dataclass(frozen=True)
class Rounding:
    """Accumulators are rounded to `n_bits` before they are looked up."""

    n_bits: int
    method: RoundingMethod

    @classmethod
    def of(cls, rounding_threshold_bits: int | Mapping[str, Any] | None) -> Rounding | None:
        """From None, an int (exact rounding), or ``{"n_bits": int, "method": "exact" | "approximate"}``.

        Raises
        ------
        QuantizationError
            On anything else, and if the int is not from 2 to 8.
        """
        given = rounding_threshold_bits
        if given is None:
            return None
        parts = dict(given) if isinstance(given, Mapping) else {"n_bits": given}
        bits, method = parts.pop("n_bits", None), str(parts.pop("method", "exact")).lower()
        if parts or isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
            raise QuantizationError(
                'rounding_threshold_bits must be None, an int from 2 to 8, or {"n_bits": int, "method": "exact" or '
                f'"approximate"}}, got {given!r}'
            )
        if method == "exact":
            return cls(bits, "exact")
        if method == "approximate":
            return cls(bits, "approximate")
        raise QuantizationError(f"rounding_threshold_bits: method must be 'exact' or 'approximate', got {method!r}")


@dataclass(frozen=True)
class Settings:
    """How a network is quantized.

    Attributes
    ----------
    n_bits : NBits
    rounding : Rounding or None
    bounds : {"calibrated", "proved"}
        Whether accumulators are as wide as calibration data plus `margin` needs, or as any input could need.
    margin : float
        Part of an accumulator's observed range that is added at both ends.
    observer : {"minmax", "percentile", "mse"}
    weights, activations : {"per_channel", "per_tensor"}
        What has a scale of its own.
    range_margin : float
        Part of the range of each feature of a table (inputs with one scale per element) that is added at both ends.
    """

    n_bits: NBits
    rounding: Rounding | None = None
    bounds: BoundsMode = "calibrated"
    margin: float = 0.25
    observer: ObserverName = "minmax"
    weights: Granularity = "per_channel"
    activations: Granularity = "per_tensor"
    range_margin: float = 0.0

    def __post_init__(self) -> None:
        for name, kinds in (
            ("bounds", BoundsMode),
            ("observer", ObserverName),
            ("weights", Granularity),
            ("activations", Granularity),
            ("observer", ObserverName),
        ):
            if getattr(self, name) not in get_args(kinds):
                allowed = " or ".join(map(repr, get_args(kinds)))
                raise QuantizationError(f"{name} must be {allowed}, got {getattr(self, name)!r}")
        if isinstance(self.margin, bool) or not isinstance(self.margin, int | float) or not 0 <= self.margin <= 10:
            raise QuantizationError(f"margin must be a number from 0 to 10, got {self.margin!r}")

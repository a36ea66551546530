"""Type aliases used in fhelearn's signatures."""

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
ObjectArray: TypeAlias = NDArray[Any]
"""An array of Python integers (``dtype=object``): arithmetic on it can never wrap."""

FheMode: TypeAlias = Literal["disable", "simulate", "execute"]
OverflowMode: TypeAlias = Literal["error", "wrap"]
Provenance: TypeAlias = Literal["proved", "structural", "calibrated"]

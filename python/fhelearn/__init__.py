"""Predict on encrypted data with scikit-learn's own estimators.

Public modules carry scikit-learn's names (``fhelearn.linear_model``, ``fhelearn.svm``, ...). Importing this package
loads nothing heavy: estimators, back ends and cryptography are loaded by the modules that use them.
"""

from fhelearn.exceptions import (
    AccumulatorOverflowError,
    BackendUnavailableError,
    CiphertextError,
    FhelearnError,
    HiddenGridWarning,
    InputRangeError,
    KeysError,
    LoweringError,
    ModelFormatError,
    NotCompiledError,
    OutOfRangeError,
    OutOfRangeWarning,
    ParametersNotFoundError,
    ProgramError,
    ProgramFormatError,
    QuantizationError,
    UnsupportedOperatorError,
)

__version__ = "0.1.0"

__all__ = [
    "AccumulatorOverflowError",
    "BackendUnavailableError",
    "CiphertextError",
    "FhelearnError",
    "HiddenGridWarning",
    "InputRangeError",
    "KeysError",
    "LoweringError",
    "ModelFormatError",
    "NotCompiledError",
    "OutOfRangeError",
    "OutOfRangeWarning",
    "ParametersNotFoundError",
    "ProgramError",
    "ProgramFormatError",
    "QuantizationError",
    "UnsupportedOperatorError",
    "__version__",
]

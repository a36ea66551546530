"""Errors and warnings of fhelearn; each also derives from the builtin that a caller would guess.

Messages name what failed, where, the value met, what is allowed, and the remedy.
"""


class FhelearnError(Exception):
    """Base of every error that fhelearn raises on purpose."""


class ProgramError(FhelearnError, ValueError):
    """An integer program breaks a rule of ``ir/SPEC.md``; the message names the node."""


class ProgramFormatError(ProgramError):
    """The bytes of a program file are truncated, altered, of a newer format, or hostile."""


class InputRangeError(FhelearnError, ValueError):
    """Integer inputs of a program have the wrong dtype or shape, or lie outside their declared bounds."""


class AccumulatorOverflowError(FhelearnError, OverflowError):
    """A run-time value left a bound that was declared (structural or calibrated), not proved."""


class QuantizationError(FhelearnError, ValueError):
    """Float data, bit widths or ranges from which no encoder can be built."""


class OutOfRangeError(FhelearnError, ValueError):
    """Float inputs lie outside the range seen at ``compile`` and ``on_out_of_range="error"`` was asked for."""


class NotCompiledError(FhelearnError, ValueError, AttributeError):
    """The estimator is fitted, but ``compile(X)`` has not been called yet."""


class LoweringError(FhelearnError, ValueError):
    """A back end cannot express a node; the message names the node and the remedy."""


class UnsupportedOperatorError(LoweringError):
    """A model holds operators that cannot be expressed; the message names every one of them and the remedy."""


class ModelFormatError(FhelearnError, ValueError):
    """An ONNX model is corrupt, incomplete or of a form that cannot be imported; the message names what and where."""


class ParametersNotFoundError(LoweringError):
    """No cryptographic parameters exist for a circuit; the message names its widest node."""


class BackendUnavailableError(FhelearnError, ImportError):
    """A back end's library is not installed or has no build for this platform."""


class KeysError(FhelearnError, ValueError):
    """Keys are missing, corrupt, or belong to other parameters or another key set."""


class CiphertextError(FhelearnError, ValueError):
    """A ciphertext is corrupt, or belongs to another circuit or another key set."""


class HiddenGridWarning(UserWarning):
    """The data given to ``compile`` has too few values to hide thresholds among decoys; the message names features."""


class OutOfRangeWarning(UserWarning):
    """Float inputs outside the range seen at ``compile`` were clipped; the message counts them."""

"""Encrypted execution through concrete-python: the only package that imports it.

A program is lowered to MLIR text with exact widths and tables, compiled without tracing or sample data, and run on
ciphertexts. Compilation, key generation and evaluation happen in a spawned server process, because the native code
there replaces signal handlers, may abort, and must not be forked. Encryption and decryption happen in this process,
which keeps the secret keys. The server process makes them, hands them over and keeps no reference, but it does not wipe
its memory: end it (a new one starts by itself) before letting others look into that.
"""

from fhelearn.backends.concrete.ciphertexts import Ciphertexts
from fhelearn.backends.concrete.circuit import Circuit, compile_program
from fhelearn.backends.concrete.cost import CostReport
from fhelearn.backends.concrete.keys import EvaluationKeys, Keys
from fhelearn.backends.concrete.options import CircuitOptions
from fhelearn.backends.concrete.runtime import is_available, unavailable_reason
from fhelearn.backends.concrete.server_process import NativeError, ServerProcessError, ServerStoppedError

__all__ = [
    "Ciphertexts",
    "Circuit",
    "CircuitOptions",
    "CostReport",
    "EvaluationKeys",
    "Keys",
    "NativeError",
    "ServerProcessError",
    "ServerStoppedError",
    "compile_program",
    "is_available",
    "unavailable_reason",
]

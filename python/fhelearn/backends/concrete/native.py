"""Calls into ``concrete.compiler``, one function each; the only module that touches its objects.

Nothing here checks its arguments: keys and ciphertexts must have passed the envelopes first, because the native code
trusts them. Compiling, key generation and evaluation run in the server process (:mod:`.child`) alone: they install a
SIGINT handler that kills the process, and a panic inside them cannot be caught.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fhelearn.backends.concrete import runtime
from fhelearn.typing import IntArray


@dataclass(frozen=True)
class Settings:
    """What the compiler is told.

    Parameters
    ----------
    p_error : float
        Per lookup, in (0, 1).
    security_level : int
        128 or 132.
    multi : bool
        Several parameter sets rather than one.
    """

    p_error: float
    security_level: int
    multi: bool


@dataclass(frozen=True)
class LoadedProgram:
    """A compiled program whose code is loaded into this process.

    Attributes
    ----------
    server : object
        ``ServerProgram``.
    info : bytes
        ``ProgramInfo`` as JSON.
    feedback : dict
        What the compiler reports: see :func:`read_feedback`.
    """

    server: Any
    info: bytes
    feedback: dict[str, Any]


def compile_module(mlir: str, settings: Settings, folder: str) -> LoadedProgram:
    """Compile MLIR text, load the result and delete the files.

    Parameters
    ----------
    mlir : str
        A module in the FHELinalg dialect.
    settings : Settings
    folder : str
        An empty private directory; its path holds no character special to a shell, since the linker's command line is
        not quoted. Removed on return.

    Raises
    ------
    RuntimeError
        With the compiler's message. What the parser complains of goes to file descriptor 2.
    """
    cc = runtime.load()
    options = cc.CompilationOptions(cc.Backend.CPU)
    options.set_loop_parallelize(True)
    options.set_dataflow_parallelize(False)
    options.set_auto_parallelize(False)
    options.set_compress_evaluation_keys(True)
    options.set_compress_input_ciphertexts(True)
    options.set_global_p_error(1.0)
    options.set_p_error(settings.p_error)
    strategy = cc.OptimizerStrategy
    options.set_optimizer_strategy(strategy.DAG_MULTI if settings.multi else strategy.DAG_MONO)
    options.set_optimizer_multi_parameter_strategy(cc.OptimizerMultiParameterStrategy.PRECISION)
    options.set_enable_tlu_fusing(False)  # fusing lookups is a pass of ours: what the program shows is what runs
    options.set_security_level(settings.security_level)
    options.set_composable(False)
    compiler = cc.Compiler(
        folder,
        cc.lookup_runtime_lib(),
        generate_shared_lib=True,
        generate_static_lib=False,
        generate_program_info=True,
        generate_compilation_feedback=True,
    )
    try:
        library = compiler.compile(mlir, options)
        server = cc.ServerProgram(library, False)
        info = library.get_program_info()
        return LoadedProgram(server, bytes(info.serialize()), read_feedback(cc, library))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_feedback(cc: Any, library: Any) -> dict[str, Any]:
    """Complexity, key sizes and lookup counts per function and tag, as JSON-compatible values."""
    feedback = library.get_program_compilation_feedback()
    functions = {}
    for circuit in library.get_program_info().get_circuits():
        name = circuit.get_name()
        part = feedback.get_circuit_feedback(name)
        lookups = {cc.PrimitiveOperation.PBS, cc.PrimitiveOperation.WOP_PBS}
        functions[name] = {
            "lookups": int(cc.MoreCircuitCompilationFeedback.count(part, operations=lookups)),
            "lookups_per_tag": {
                str(tag): int(count)
                for tag, count in cc.MoreCircuitCompilationFeedback.count_per_tag(part, operations=lookups).items()
            },
            "input_bytes": int(part.total_inputs_size),
            "output_bytes": int(part.total_output_size),
        }
    return {
        "complexity": float(feedback.complexity),
        "p_error": float(feedback.p_error),
        "global_p_error": float(feedback.global_p_error),
        "evaluation_key_bytes": int(feedback.total_bootstrap_keys_size + feedback.total_keyswitch_keys_size),
        "secret_key_bytes": int(feedback.total_secret_keys_size),
        "functions": functions,
    }


def generate_keys(info: bytes) -> tuple[bytes, bytes]:
    """Fresh random keys for the parameters in `info`: (whole key set with secrets, evaluation keys)."""
    cc = runtime.load()
    keyset = cc.Keyset(cc.ProgramInfo.deserialize(info), None)
    return bytes(keyset.serialize()), bytes(keyset.get_server_keys().serialize())


def extract_evaluation_keys(keyset: bytes) -> bytes:
    """The evaluation keys inside a whole key set."""
    return bytes(runtime.load().Keyset.deserialize(keyset).get_server_keys().serialize())


def load_evaluation_keys(data: bytes) -> Any:
    """``ServerKeyset`` from its bytes. Raises RuntimeError if they do not parse."""
    return runtime.load().ServerKeyset.deserialize(data)


def call(server: Any, function: str, arguments: Sequence[bytes], keys: Any) -> list[bytes]:
    """Evaluate one function on ciphertexts. Makes a fresh ``ServerCircuit``: a shared one returns wrong results."""
    cc = runtime.load()
    values = [cc.TransportValue.deserialize(data) for data in arguments]
    return [bytes(result.serialize()) for result in server.get_server_circuit(function).call(values, keys)]


class Client:
    """Encrypts and decrypts with a key set; its calls leave signal handlers alone and may run in any thread."""

    def __init__(self, info: bytes, keyset: bytes) -> None:
        self._cc = runtime.load()
        program_info = self._cc.ProgramInfo.deserialize(info)
        self._program = self._cc.ClientProgram.create_encrypted(program_info, self._cc.Keyset.deserialize(keyset))

    def encrypt(self, function: str, position: int, value: IntArray) -> bytes:
        """Ciphertext of argument `position` of `function`; `value` has the argument's whole shape, batch included."""
        circuit = self._program.get_client_circuit(function)
        return bytes(circuit.prepare_input(self._cc.Value(value), position).serialize())

    def decrypt(self, function: str, position: int, data: bytes) -> IntArray:
        """Integers in result `position` of `function`, shape as the function returns, int64."""
        circuit = self._program.get_client_circuit(function)
        result = circuit.process_output(self._cc.TransportValue.deserialize(data), position)
        return np.asarray(result.to_py_val()).astype(np.int64)

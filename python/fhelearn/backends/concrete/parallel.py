"""Rows on several workers through joblib: programs, evaluation keys and ciphertexts go out, ciphertexts come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fhelearn.backends.concrete import forks, runtime
from fhelearn.backends.concrete.ciphertexts import Ciphertexts
from fhelearn.backends.concrete.keys import EvaluationKeys
from fhelearn.backends.concrete.options import CircuitOptions
from fhelearn.backends.concrete.progress import progress_bar
from fhelearn.ir import from_bytes, to_bytes

if TYPE_CHECKING:
    from fhelearn.backends.concrete.circuit import Circuit

_CHUNKS_PER_WORKER = 4
_lock = forks.Lock()
_circuits: dict[str, Any] = {}
_MAX_CIRCUITS = 16


def count_workers(n_jobs: int | None) -> int:
    """Workers that joblib would use for `n_jobs`.

    Raises
    ------
    ValueError
        If that is more than one and joblib's ``multiprocessing`` back end is active: it forks, and Concrete's thread
        pools do not survive a fork.
    """
    with runtime.first_import():
        import joblib.parallel  # the server process has no use for it and starts faster without

    workers = int(joblib.effective_n_jobs(n_jobs))
    backend, _ = joblib.parallel.get_active_backend()
    if workers > 1 and type(backend).__name__ == "MultiprocessingBackend":
        raise ValueError(
            "joblib's 'multiprocessing' back end forks this process, and Concrete's thread pools hang in a forked "
            "child; use joblib.parallel_config('loky') (the default), 'dask' or 'ray'"
        )
    return workers


def run(circuit: Circuit, inputs: Ciphertexts, keys: EvaluationKeys, workers: int, progress: bool) -> Ciphertexts:
    """Evaluate `inputs` on joblib's workers.

    Each worker compiles the program once and keeps it. No secret is sent.
    """
    import joblib.parallel

    program, options = to_bytes(circuit.program), circuit.options.as_dict()
    # as an array joblib maps it into the workers' memory instead of copying it into every message
    key_bytes = np.frombuffer(keys.to_bytes(), dtype=np.uint8)
    count = len(inputs.pieces)
    size = -(-count // (workers * _CHUNKS_PER_WORKER))
    chunks = [inputs.take(start, start + size) for start in range(0, count, size)]
    backend, _ = joblib.parallel.get_active_backend()
    generator = bool(getattr(backend, "supports_return_generator", False))
    tasks = (joblib.delayed(run_chunk)(program, options, circuit.fingerprint, key_bytes, c.to_bytes()) for c in chunks)
    results = []
    with progress_bar("encrypted rows", inputs.num_rows, "row", progress) as advance:
        runner = joblib.Parallel(n_jobs=workers, return_as="generator" if generator else "list")
        for chunk, data in zip(chunks, runner(tasks), strict=True):
            results.append(Ciphertexts.from_bytes(data))
            advance(chunk.num_rows)
    return Ciphertexts.join(results)


def run_chunk(program: bytes, options: dict[str, Any], fingerprint: str, keys: Any, inputs: bytes) -> bytes:
    """What a worker does; everything it gets and returns is safe to show to a stranger."""
    circuit = _circuit(program, options, fingerprint)
    evaluation_keys = EvaluationKeys.from_bytes(np.asarray(keys).tobytes())
    result: Ciphertexts = circuit.run(Ciphertexts.from_bytes(inputs), evaluation_keys)
    return result.to_bytes()


def _circuit(program: bytes, options: dict[str, Any], fingerprint: str) -> Any:
    from fhelearn.backends.concrete.circuit import compile_program  # circuits import this module

    with _lock:
        if fingerprint not in _circuits:
            while len(_circuits) >= _MAX_CIRCUITS:
                _circuits.pop(next(iter(_circuits)))
            _circuits[fingerprint] = compile_program(from_bytes(program), CircuitOptions(**options))
        return _circuits[fingerprint]

"""Threads and joblib workers give the reference's answers; the fork-based back end is refused."""

from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from joblib.externals.loky.backend.reduction import dumps

from fhelearn.backends.concrete import Circuit, CircuitOptions, Keys, compile_program, parallel
from fhelearn.ir import ProgramBuilder, evaluate

pytestmark = pytest.mark.fhe


def compiled() -> Circuit:
    b = ProgramBuilder()
    x = b.emit("input", shape=(4,), lo=0, hi=1)
    y = b.emit("matmul", x, weights=np.array([[1, 2], [1, -1], [1, 1], [-2, 1]]))
    return compile_program(
        b.build(b.emit("table_lookup", y, lo=-4, table=np.arange(16) * 5 % 7)), CircuitOptions(batch_size=2)
    )


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    made = compiled()
    made.keygen()
    return made


@pytest.fixture
def rows(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2, size=(20, 4))


def test_one_circuit_serves_many_threads(circuit: Circuit, rows: np.ndarray) -> None:
    """One of the library's own circuit objects shared by four threads gave 15 wrong answers of 40."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda row: circuit.execute([row[np.newaxis]])[0][0], rows))
    np.testing.assert_array_equal(answers, evaluate(circuit.program, [rows])[0])


def test_many_threads_may_compile_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        circuits = list(pool.map(lambda _: compiled(), range(8)))
    assert len({c.fingerprint for c in circuits}) == 1


def test_loky_workers_give_the_same_answers(circuit: Circuit, rows: np.ndarray) -> None:
    np.testing.assert_array_equal(circuit.execute([rows], n_jobs=2)[0], evaluate(circuit.program, [rows])[0])


def test_joblib_threads_give_the_same_answers(circuit: Circuit, rows: np.ndarray) -> None:
    with joblib.parallel_config("threading", n_jobs=2):
        np.testing.assert_array_equal(circuit.execute([rows], progress=True)[0], evaluate(circuit.program, [rows])[0])


def test_forked_workers_are_refused(circuit: Circuit, rows: np.ndarray) -> None:
    with joblib.parallel_config("multiprocessing"), pytest.raises(ValueError, match="loky"):
        circuit.execute([rows], n_jobs=2)


def test_workers_get_no_secret(circuit: Circuit, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """What joblib's loky back end would pickle for its workers holds no stretch of the secret part of the key set."""
    sent: list[bytes] = []
    genuine = parallel.run_chunk

    def spy(*arguments: object) -> bytes:
        sent.append(bytes(dumps((genuine, arguments))))
        return genuine(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(parallel, "run_chunk", spy)
    with joblib.parallel_config("threading"):
        circuit.execute([rows], n_jobs=2)
    assert isinstance(circuit.keys, Keys)
    assert sent
    keyset, public = circuit.keys.to_bytes(), circuit.keys.evaluation_keys.content
    secret = secret_words(keyset)[:40]
    assert len(secret) >= 4
    assert all(s in keyset for s in secret)
    assert not any(s in message for message in sent for s in secret)
    assert any(public[1000:2000] in message for message in sent)


def secret_words(keyset: bytes) -> list[bytes]:
    """Stretches of binary secret keys: 64 words of 0 or 1, mixed."""
    found = []
    for offset in range(8):
        words = np.frombuffer(keyset[offset : offset + (len(keyset) - offset) // 8 * 8], dtype="<u8")
        bits = words <= 1
        for start in range(0, len(words) - 64, 64):
            stretch = words[start : start + 64]
            if bits[start : start + 64].all() and 16 < stretch.sum() < 48:
                found.append(stretch.tobytes())
    return found

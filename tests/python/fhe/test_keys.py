"""Keys: they survive files, and whatever is damaged or foreign is refused before native code sees it."""

import os
import pickle
import stat
from pathlib import Path

import numpy as np
import pytest

from fhelearn.backends.concrete import Circuit, CircuitOptions, EvaluationKeys, Keys, compile_program
from fhelearn.exceptions import CiphertextError, KeysError
from fhelearn.ir import Program, ProgramBuilder, evaluate

pytestmark = pytest.mark.fhe

ROWS = np.array([[1, 2], [3, 0], [2, 2]])


def lookup_program(bits: int = 2) -> Program:
    b = ProgramBuilder()
    x = b.emit("input", shape=(2,), lo=0, hi=2**bits - 1)
    return b.build(b.emit("table_lookup", x, lo=0, table=np.arange(2**bits)[::-1].copy()))


def compiled(bits: int = 2) -> Circuit:
    return compile_program(lookup_program(bits), CircuitOptions(batch_size=1))


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    made = compiled()
    made.keygen()
    return made


def test_keys_survive_a_file_and_decrypt_what_was_encrypted_before(circuit: Circuit, tmp_path: Path) -> None:
    assert circuit.keys is not None
    results = circuit.run(circuit.encrypt([ROWS]))
    path = tmp_path / "my keys"
    circuit.keys.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = compiled()
    other.keys = Keys.load(path)
    assert other.keys.key_id == circuit.keys.key_id
    np.testing.assert_array_equal(other.decrypt(results)[0], evaluate(circuit.program, [ROWS])[0])
    np.testing.assert_array_equal(other.execute([ROWS])[0], evaluate(circuit.program, [ROWS])[0])


def test_a_server_with_evaluation_keys_alone_can_run_but_not_decrypt(circuit: Circuit, tmp_path: Path) -> None:
    assert circuit.keys is not None
    circuit.keys.evaluation_keys.save(tmp_path / "ek")
    server = compiled()
    results = server.run(circuit.encrypt([ROWS]), EvaluationKeys.load(tmp_path / "ek"))
    with pytest.raises(KeysError, match="keygen"):
        server.decrypt(results)
    with pytest.raises(TypeError, match="secret keys, which no server should see; pass keys"):
        server.run(circuit.encrypt([ROWS]), circuit.keys)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got bytes; read bytes by EvaluationKeys"):
        server.run(circuit.encrypt([ROWS]), b"abc")  # type: ignore[arg-type]
    np.testing.assert_array_equal(circuit.decrypt(results)[0], evaluate(circuit.program, [ROWS])[0])


def test_a_failed_save_leaves_the_old_file_and_no_other(circuit: Circuit, tmp_path: Path) -> None:
    assert circuit.keys is not None
    with pytest.raises(OSError, match="directory"):
        circuit.keys.save(tmp_path / "missing" / "keys")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - the message is the platform's
        circuit.keys.save(tmp_path / "taken")
    assert os.listdir(tmp_path) == ["taken"]


def test_damaged_key_files_are_refused(circuit: Circuit) -> None:
    assert circuit.keys is not None
    evaluation = circuit.keys.evaluation_keys.to_bytes()
    rng = np.random.default_rng(0)
    for data, read in ((circuit.keys.to_bytes(), Keys.from_bytes), (evaluation, EvaluationKeys.from_bytes)):
        places = [0, 8, 12, 20, 40, len(data) // 2, len(data) - 1, *rng.integers(0, len(data), 10).tolist()]
        for place in places:
            damaged = bytearray(data)
            damaged[place] ^= 1 << int(rng.integers(8))
            with pytest.raises(KeysError):
                read(bytes(damaged))
        for length in (0, 7, 19, 200, len(data) // 2, len(data) - 1):
            with pytest.raises(KeysError):
                read(data[:length])
        with pytest.raises(KeysError):
            read(data + b"x")


def test_a_file_of_the_other_kind_is_refused(circuit: Circuit) -> None:
    assert circuit.keys is not None
    with pytest.raises(KeysError, match="holds 'keys', expected 'evaluation-keys'"):
        EvaluationKeys.from_bytes(circuit.keys.to_bytes())
    with pytest.raises(KeysError, match="holds 'evaluation-keys', expected 'keys'"):
        Keys.from_bytes(circuit.keys.evaluation_keys.to_bytes())


def test_keys_of_other_parameters_are_refused(circuit: Circuit) -> None:
    other = compiled(bits=4)
    foreign = other.keygen()
    with pytest.raises(KeysError, match="other cryptographic parameters"):
        circuit.keys = foreign
    with pytest.raises(KeysError, match="other cryptographic parameters"):
        circuit.run(circuit.encrypt([ROWS]), foreign.evaluation_keys)
    with pytest.raises(TypeError, match="must be Keys or None"):
        circuit.keys = foreign.evaluation_keys  # type: ignore[assignment]


def test_another_key_set_of_the_same_parameters_is_refused(circuit: Circuit) -> None:
    """Native code would return garbage without a word."""
    twin = compiled()
    twin.keygen()
    assert twin.keys is not None
    assert twin.parameters == circuit.parameters
    encrypted = circuit.encrypt([ROWS])
    with pytest.raises(CiphertextError, match="key set"):
        circuit.run(encrypted, twin.keys.evaluation_keys)
    with pytest.raises(CiphertextError, match="key set"):
        twin.decrypt(circuit.run(encrypted))


def test_a_key_set_keeps_few_programs_ready(circuit: Circuit) -> None:
    assert circuit.keys is not None
    info = circuit._compiled.info
    first = circuit.keys.client(info)
    for blanks in range(1, 20):
        circuit.keys.client(info + b" " * blanks)
        assert circuit.keys.client(info) is first
    assert len(circuit.keys._clients) <= 8


def test_keys_are_made_once_unless_forced(circuit: Circuit) -> None:
    fresh = compiled()
    first = fresh.keygen()
    assert fresh.keygen() is first
    assert fresh.keygen(force=True).key_id != first.key_id
    np.testing.assert_array_equal(fresh.execute([ROWS])[0], evaluate(fresh.program, [ROWS])[0])


def test_secret_keys_are_not_pickled(circuit: Circuit) -> None:
    with pytest.raises(TypeError, match="secrets"):
        pickle.dumps(circuit.keys)


def test_a_forged_evaluation_key_ends_in_an_exception(circuit: Circuit) -> None:
    """A valid envelope around hostile bytes reaches native code, but in a process of its own."""
    assert circuit.keys is not None
    genuine = circuit.keys.evaluation_keys
    encrypted = circuit.encrypt([ROWS[:1]])
    wrong = compiled(bits=4).keygen().evaluation_keys.content
    for content in (b"garbage", bytes(4096), wrong):
        key_id = "0" * 32
        forged = EvaluationKeys.from_bytes(EvaluationKeys(genuine.parameters, key_id, content).to_bytes())
        relabelled = type(encrypted)(encrypted.circuit, key_id, "input", encrypted.pieces, encrypted.contents)
        with pytest.raises((KeysError, CiphertextError, RuntimeError)):
            circuit.run(relabelled, forged)
    np.testing.assert_array_equal(circuit.execute([ROWS])[0], evaluate(circuit.program, [ROWS])[0])

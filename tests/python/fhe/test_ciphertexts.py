"""Ciphertexts: they survive bytes, and whatever is damaged, foreign or out of range is refused."""

import numpy as np
import pytest

from fhelearn.backends.concrete import Ciphertexts, Circuit, CircuitOptions, compile_program
from fhelearn.exceptions import CiphertextError, InputRangeError, KeysError
from fhelearn.ir import ProgramBuilder

pytestmark = pytest.mark.fhe

ROWS = np.array([[1, 2], [3, -4], [2, 2]])


def compiled(weight: int = 2) -> Circuit:
    b = ProgramBuilder()
    x = b.emit("input", shape=(2,), lo=-4, hi=3, name="x")
    return compile_program(
        b.build(b.emit("multiply_constant", x, value=np.array(weight))), CircuitOptions(batch_size=2)
    )


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    made = compiled()
    made.keygen()
    return made


def test_ciphertexts_survive_bytes(circuit: Circuit) -> None:
    encrypted = Ciphertexts.from_bytes(circuit.encrypt([ROWS]).to_bytes())
    results = Ciphertexts.from_bytes(circuit.run(encrypted).to_bytes())
    np.testing.assert_array_equal(circuit.decrypt(results)[0], 2 * ROWS)


def test_no_rows_are_a_valid_message(circuit: Circuit) -> None:
    encrypted = Ciphertexts.from_bytes(circuit.encrypt([ROWS[:0]]).to_bytes())
    assert encrypted.num_rows == 0
    assert circuit.decrypt(circuit.run(encrypted))[0].shape == (0, 2)


def test_encryption_is_randomized(circuit: Circuit) -> None:
    assert circuit.encrypt([ROWS]).contents != circuit.encrypt([ROWS]).contents


def test_damaged_ciphertexts_are_refused(circuit: Circuit) -> None:
    data = circuit.encrypt([ROWS]).to_bytes()
    rng = np.random.default_rng(0)
    for place in [0, 9, 14, 30, len(data) - 1, *rng.integers(0, len(data), 60).tolist()]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(CiphertextError):
            Ciphertexts.from_bytes(bytes(damaged))
    for length in (0, 5, 20, 100, len(data) - 1):
        with pytest.raises(CiphertextError):
            Ciphertexts.from_bytes(data[:length])


def test_ciphertexts_of_another_circuit_are_refused(circuit: Circuit) -> None:
    other = compiled(weight=3)
    other.keygen()
    with pytest.raises(CiphertextError, match="same program"):
        other.run(circuit.encrypt([ROWS]))


def test_inputs_and_results_cannot_be_mixed_up(circuit: Circuit) -> None:
    encrypted = circuit.encrypt([ROWS])
    with pytest.raises(CiphertextError, match="input ciphertexts, output ciphertexts are needed"):
        circuit.decrypt(encrypted)
    with pytest.raises(CiphertextError, match="output ciphertexts, input ciphertexts are needed"):
        circuit.run(circuit.run(encrypted))


def test_swapped_and_missing_parts_are_refused(circuit: Circuit) -> None:
    encrypted = circuit.encrypt([ROWS])
    batch, single = encrypted.contents
    swapped = Ciphertexts(encrypted.circuit, encrypted.key_id, "input", encrypted.pieces, (single, batch))
    with pytest.raises(CiphertextError, match="cannot be evaluated"):
        circuit.run(swapped)
    short = Ciphertexts(encrypted.circuit, encrypted.key_id, "input", encrypted.pieces, ((), ()))
    with pytest.raises(CiphertextError, match="do not fit"):
        circuit.run(short)
    results = circuit.run(encrypted)
    batch, single = results.contents
    with pytest.raises(CiphertextError, match="cannot be decrypted"):
        circuit.decrypt(Ciphertexts(results.circuit, results.key_id, "output", results.pieces, (single, batch)))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "takes 1 inputs, got 0"),
        ([ROWS, ROWS], "takes 1 inputs, got 2"),
        ([ROWS.astype(np.float64)], "must be an int64 array, got float64"),
        ([ROWS.tolist()], "must be an int64 array, got list"),
        ([ROWS[:, :1]], "must have shape"),
        ([ROWS[0]], "must have shape"),
        ([np.array([[0, 4]])], r"row 0, element \(1,\) is 4, allowed is \[-4, 3\]"),
        ([np.array([[0, 0], [-5, 0]])], r"row 1, element \(0,\) is -5"),
    ],
)
def test_bad_inputs_are_refused_before_encryption(circuit: Circuit, inputs: list[object], message: str) -> None:
    with pytest.raises(InputRangeError, match=message):
        circuit.encrypt(inputs)  # type: ignore[arg-type]
    with pytest.raises(InputRangeError, match=message):
        circuit.execute(inputs)  # type: ignore[arg-type]


def test_what_needs_keys_says_how_to_get_them() -> None:
    bare = compiled()
    with pytest.raises(KeysError, match=r"call keygen\(\)"):
        bare.encrypt([ROWS])


def test_native_objects_and_bytes_are_not_taken_for_ciphertexts(circuit: Circuit) -> None:
    with pytest.raises(TypeError, match="must be Ciphertexts, got bytes"):
        circuit.run(circuit.encrypt([ROWS]).to_bytes())  # type: ignore[arg-type]

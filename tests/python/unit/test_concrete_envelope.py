"""Envelopes of keys and ciphertexts: round trips, damage, hostile content. No native code is involved."""

import json
from pathlib import Path

import numpy as np
import pytest

from fhelearn.backends.concrete import Ciphertexts, EvaluationKeys, Keys, envelope
from fhelearn.backends.concrete.plan import Piece
from fhelearn.exceptions import CiphertextError, KeysError

KEY_ID = "0123456789abcdef" * 2
KEYS = Keys("parameters", KEY_ID, b"secret" * 50)
EVALUATION = EvaluationKeys("parameters", KEY_ID, b"public" * 50)
MESSAGE = Ciphertexts("circuit", KEY_ID, "input", (Piece(3, True), Piece(1, False)), ((b"ab", b"c"), (b"", b"d" * 100)))

READERS = [
    (KEYS.to_bytes(), Keys.from_bytes, KeysError),
    (EVALUATION.to_bytes(), EvaluationKeys.from_bytes, KeysError),
    (MESSAGE.to_bytes(), Ciphertexts.from_bytes, CiphertextError),
]


def test_everything_survives_bytes() -> None:
    assert Ciphertexts.from_bytes(MESSAGE.to_bytes()) == MESSAGE
    assert EvaluationKeys.from_bytes(EVALUATION.to_bytes()) == EVALUATION
    assert Keys.from_bytes(KEYS.to_bytes()).to_bytes() == KEYS.to_bytes()


@pytest.mark.parametrize(("data", "read", "error"), READERS)
def test_every_flipped_bit_and_every_truncation_is_noticed(data: bytes, read: object, error: type[Exception]) -> None:
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(error):
            read(bytes(damaged))  # type: ignore[operator]
        with pytest.raises(error):
            read(data[:place])  # type: ignore[operator]


@pytest.mark.parametrize(("data", "read", "error"), READERS)
def test_random_bytes_are_refused(data: bytes, read: object, error: type[Exception], rng: np.random.Generator) -> None:
    for size in (0, 1, 8, 20, 52, 1000):
        for prefix in (b"", envelope.MAGIC, data[:20]):
            with pytest.raises(error):
                read(prefix + rng.bytes(size))  # type: ignore[operator]


@pytest.mark.parametrize(("data", "read", "error"), READERS)
def test_what_is_not_bytes_is_refused(data: bytes, read: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="must be bytes, got str"):
        read("text")  # type: ignore[operator]


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"parameters": 5, "key_id": KEY_ID},
        {"parameters": "p", "key_id": "short"},
        {"parameters": "p", "key_id": None},
        {"parameters": "p", "key_id": "Z" * 32},
    ],
)
def test_sealed_headers_with_wrong_fields_are_refused(header: dict[str, object]) -> None:
    with pytest.raises(KeysError):
        EvaluationKeys.from_bytes(envelope.seal("evaluation-keys", header, [b"x"]))


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [1]},
        {"rows": [0, 1]},
        {"rows": [True, 1]},
        {"rows": "11"},
        {"batched": [1, 0]},
        {"parts": 3},
        {"parts": -1},
        {"parts": "2"},
        {"direction": "sideways"},
        {"circuit": None},
    ],
)
def test_sealed_ciphertexts_with_wrong_fields_are_refused(change: dict[str, object]) -> None:
    header, blobs = envelope.unseal(MESSAGE.to_bytes(), "ciphertexts", CiphertextError, "test")
    with pytest.raises(CiphertextError):
        Ciphertexts.from_bytes(envelope.seal("ciphertexts", {**header, **change}, blobs))


def test_another_format_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "FORMAT_VERSION", 9)
    newer = MESSAGE.to_bytes()
    monkeypatch.undo()
    with pytest.raises(CiphertextError, match="has format version 9, this fhelearn reads 1"):
        Ciphertexts.from_bytes(newer)


@pytest.mark.parametrize("text", [b"[]", b"5", b"\xff", b"[" * 50_000, b"{"])
def test_sealed_headers_that_are_no_dictionaries_are_refused(text: bytes) -> None:
    import hashlib
    import struct

    content = envelope.MAGIC + struct.pack("<IQ", len(text), 0) + text
    with pytest.raises(CiphertextError, match="malformed"):
        Ciphertexts.from_bytes(content + hashlib.sha256(content).digest())


def test_files_are_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with pytest.raises(FileExistsError, match=r"exists; if it holds keys, .* overwrite=True"):
        KEYS.save(path)
    assert [path.read_bytes(), *tmp_path.iterdir()] == [b"old", path]
    KEYS.save(path, overwrite=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Keys.load(path).key_id == KEY_ID
    KEYS.save(tmp_path / "second")
    assert (tmp_path / "second").stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keys", "second"]
    with pytest.raises(FileNotFoundError, match=r"directory of .*nowhere/keys does not exist"):
        KEYS.save(tmp_path / "nowhere" / "keys")


def test_joining_what_was_taken_apart_gives_the_whole() -> None:
    assert Ciphertexts.join([MESSAGE.take(0, 1), MESSAGE.take(1, 2)]) == MESSAGE
    other = Ciphertexts("other", KEY_ID, "input", (), ())
    with pytest.raises(CiphertextError, match="cannot be joined"):
        Ciphertexts.join([MESSAGE, other])


def test_representations_show_no_key_material() -> None:
    assert "secret" not in repr(KEYS)
    assert "public" not in repr(EVALUATION)
    assert "ddd" not in repr(MESSAGE)
    assert json.dumps(repr(KEYS)).isascii()

"""Keys: the client's whole key set, and the evaluation keys that a server gets."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fhelearn.backends.concrete import envelope, forks, runtime
from fhelearn.exceptions import KeysError

KEYS, EVALUATION_KEYS = "keys", "evaluation-keys"
_MAX_CLIENTS = 8
"""Programs that a key set keeps ready; each holds a copy of the keys in the library's own form."""
_KEY_ID = re.compile(r"[0-9a-f]{32}")


def new_key_id() -> str:
    """A random name for a key set: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def parameter_fingerprint(info: bytes) -> str:
    """SHA-256 (hex) of the cryptographic parameters in a program's information; equal for interchangeable keys."""
    keyset = json.loads(info)["keyset"]
    return hashlib.sha256(json.dumps(keyset, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class EvaluationKeys:
    """What a server needs to evaluate a circuit; it reveals nothing about the data.

    Attributes
    ----------
    parameters : str
        Fingerprint of the cryptographic parameters.
    key_id : str
        Which key set they belong to.
    content : bytes
        The library's own serialization.
    """

    parameters: str
    key_id: str
    content: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """In fhelearn's envelope."""
        return envelope.seal(EVALUATION_KEYS, {"parameters": self.parameters, "key_id": self.key_id}, [self.content])

    @staticmethod
    def from_bytes(data: bytes) -> EvaluationKeys:
        """Read an envelope. Raises KeysError if it is corrupt or holds something else."""
        header, blobs = _open(data, EVALUATION_KEYS, 1, "evaluation keys")
        return EvaluationKeys(header["parameters"], header["key_id"], blobs[0])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a file (mode 0600), atomically, replacing an existing one: the client can make it again."""
        envelope.write_private(path, self.to_bytes(), overwrite=True)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> EvaluationKeys:
        """Read a file. Raises KeysError if it is corrupt, OSError if it cannot be read."""
        return EvaluationKeys.from_bytes(Path(path).read_bytes())


class Keys:
    """A client's key set: it can encrypt, decrypt, and derive the evaluation keys. Holds secrets.

    Attributes
    ----------
    parameters : str
        Fingerprint of the cryptographic parameters.
    key_id : str
        Random name; ciphertexts and evaluation keys carry it.
    """

    def __init__(self, parameters: str, key_id: str, keyset: bytes, evaluation_keys: bytes | None = None) -> None:
        self.parameters = parameters
        self.key_id = key_id
        self._keyset = keyset
        self._evaluation_keys = evaluation_keys  # a part of the key set; None until somebody asks for it
        self._clients: OrderedDict[bytes, Any] = OrderedDict()  # the one used last is the last
        self._lock = forks.Lock()

    def __repr__(self) -> str:
        return f"Keys(key_id={self.key_id!r}, parameters={self.parameters[:16]!r}...)"

    def __reduce__(self) -> Any:
        raise TypeError("Keys hold secrets and are not pickled; use save() and load(), or send evaluation_keys")

    @property
    def evaluation_keys(self) -> EvaluationKeys:
        """The part for the server."""
        native = _native()
        with self._lock:
            if self._evaluation_keys is None:
                self._evaluation_keys = native.extract_evaluation_keys(self._keyset)
            return EvaluationKeys(self.parameters, self.key_id, self._evaluation_keys)

    def client(self, info: bytes) -> Any:
        """The :class:`~fhelearn.backends.concrete.native.Client` of a program with these parameters."""
        native = _native()
        with self._lock:
            client = self._clients.pop(info, None) or native.Client(info, self._keyset)
            self._clients[info] = client
            while len(self._clients) > _MAX_CLIENTS:
                self._clients.popitem(last=False)
            return client

    def to_bytes(self) -> bytes:
        """In fhelearn's envelope. The bytes hold the secret keys, unencrypted."""
        header = {"parameters": self.parameters, "key_id": self.key_id}
        return envelope.seal(KEYS, header, [self._keyset])

    @staticmethod
    def from_bytes(data: bytes) -> Keys:
        """Read an envelope. Raises KeysError if it is corrupt or holds something else."""
        header, blobs = _open(data, KEYS, 1, "keys")
        return Keys(header["parameters"], header["key_id"], blobs[0])

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write to a file that only its owner can read (mode 0600), atomically.

        It holds the secret keys, unencrypted.

        Parameters
        ----------
        path : path-like
        overwrite : bool, default=False
            Replace an existing file. What was encrypted under the keys in it cannot be decrypted any more.

        Raises
        ------
        FileExistsError
            If there is a file and not `overwrite`.
        OSError
            If the directory is missing or not writable.
        """
        try:
            envelope.write_private(path, self.to_bytes(), overwrite=overwrite)
        except FileExistsError:
            raise FileExistsError(
                f"{os.fspath(path)} exists; if it holds keys, what was encrypted under them would be lost: "
                "choose another path, or pass overwrite=True"
            ) from None
        except FileNotFoundError:
            raise FileNotFoundError(f"the directory of {os.fspath(path)} does not exist; make it first") from None

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Keys:
        """Read a file. Raises KeysError if it is corrupt, OSError if it cannot be read."""
        return Keys.from_bytes(Path(path).read_bytes())


def _native() -> Any:
    """The module that calls native code, imported on first use: reading a key file needs none."""
    with runtime.first_import():
        from fhelearn.backends.concrete import native
    return native


def require_evaluation_keys(given: object) -> None:
    """Raise TypeError unless `given` are EvaluationKeys."""
    if isinstance(given, Keys):
        raise TypeError("these are the client's secret keys, which no server should see; pass keys.evaluation_keys")
    if not isinstance(given, EvaluationKeys):
        kind = type(given).__name__
        raise TypeError(f"evaluation_keys must be EvaluationKeys, got {kind}; read bytes by EvaluationKeys.from_bytes")


def _open(data: bytes, kind: str, parts: int, where: str) -> tuple[dict[str, Any], list[bytes]]:
    header, blobs = envelope.unseal(data, kind, KeysError, where)
    envelope.text_field(header, "parameters", KeysError, where)
    if not _KEY_ID.fullmatch(envelope.text_field(header, "key_id", KeysError, where)):
        raise KeysError(f"{where}: key_id must be 32 hexadecimal digits, got {header['key_id']!r}")
    if len(blobs) != parts:
        raise KeysError(f"{where}: must have {parts} parts, got {len(blobs)}")
    return header, blobs

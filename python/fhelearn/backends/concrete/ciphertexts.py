"""Encrypted rows: the inputs or the outputs of a circuit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fhelearn.backends.concrete import envelope
from fhelearn.backends.concrete.plan import Piece
from fhelearn.exceptions import CiphertextError

KIND = "ciphertexts"
Direction: TypeAlias = Literal["input", "output"]


@dataclass(frozen=True)
class Ciphertexts:
    """Encrypted rows, in the pieces in which they are evaluated.

    Attributes
    ----------
    circuit : str
        Fingerprint of the circuit.
    key_id : str
        The key set they were encrypted with.
    direction : {"input", "output"}
    pieces : tuple of Piece
        Their order is the rows' order.
    contents : tuple of tuple of bytes
        Per piece, one ciphertext per function argument or result.
    """

    circuit: str
    key_id: str
    direction: Direction
    pieces: tuple[Piece, ...]
    contents: tuple[tuple[bytes, ...], ...] = field(repr=False)

    @property
    def num_rows(self) -> int:
        """Rows, >= 0."""
        return sum(piece.rows for piece in self.pieces)

    def take(self, start: int, stop: int) -> Ciphertexts:
        """The pieces ``start:stop``."""
        return Ciphertexts(
            self.circuit, self.key_id, self.direction, self.pieces[start:stop], self.contents[start:stop]
        )

    @staticmethod
    def join(parts: Sequence[Ciphertexts]) -> Ciphertexts:
        """The rows of several, at least one; they must agree in circuit, key set and direction."""
        first = parts[0]
        if any((p.circuit, p.key_id, p.direction) != (first.circuit, first.key_id, first.direction) for p in parts):
            raise CiphertextError("ciphertexts of different circuits, key sets or directions cannot be joined")
        pieces = tuple(piece for part in parts for piece in part.pieces)
        return Ciphertexts(
            first.circuit, first.key_id, first.direction, pieces, tuple(c for p in parts for c in p.contents)
        )

    def to_bytes(self) -> bytes:
        """In fhelearn's envelope."""
        header = {
            "circuit": self.circuit,
            "key_id": self.key_id,
            "direction": self.direction,
            "rows": [piece.rows for piece in self.pieces],
            "batched": [piece.batched for piece in self.pieces],
            "parts": len(self.contents[0]) if self.contents else 0,
        }
        return envelope.seal(KIND, header, [blob for content in self.contents for blob in content])

    @staticmethod
    def from_bytes(data: bytes) -> Ciphertexts:
        """Read an envelope. Raises CiphertextError if it is corrupt or holds something else."""
        where = "ciphertexts"
        header, blobs = envelope.unseal(data, KIND, CiphertextError, where)
        names = {k: envelope.text_field(header, k, CiphertextError, where) for k in ("circuit", "key_id", "direction")}
        if names["direction"] not in ("input", "output"):
            raise CiphertextError(f"{where}: direction must be 'input' or 'output', got {names['direction']!r}")
        pieces = _pieces(header, where)
        parts = header.get("parts")
        if type(parts) is not int or parts < 0 or parts * len(pieces) != len(blobs):
            raise CiphertextError(
                f"{where}: {len(pieces)} pieces of {parts!r} parts do not make {len(blobs)} ciphertexts"
            )
        contents = tuple(tuple(blobs[i * parts : (i + 1) * parts]) for i in range(len(pieces)))
        direction: Direction = "input" if names["direction"] == "input" else "output"
        return Ciphertexts(names["circuit"], names["key_id"], direction, pieces, contents)


def _pieces(header: dict[str, Any], where: str) -> tuple[Piece, ...]:
    rows, batched = header.get("rows"), header.get("batched")
    if not isinstance(rows, list) or not isinstance(batched, list) or len(rows) != len(batched):
        raise CiphertextError(f"{where}: the lists of pieces are missing or differ in length")
    if any(type(r) is not int or r < 1 for r in rows) or any(type(b) is not bool for b in batched):
        raise CiphertextError(f"{where}: the list of pieces is malformed")
    return tuple(Piece(r, b) for r, b in zip(rows, batched, strict=True))

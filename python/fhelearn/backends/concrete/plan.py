"""How rows are grouped into calls: deterministic rules on the program alone, so that client and server agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fhelearn.ir import Program

LOOKUP_MILLISECONDS: Mapping[int, float] = {
    1: 7,
    2: 8,
    3: 11,
    4: 13,
    5: 22,
    6: 70,
    7: 130,
    8: 260,
    9: 2800,
    10: 2000,
    12: 1200,
}
"""Rough milliseconds per lookup on one core at p_error 2**-40 by operand width, measured; other widths: 2000."""

_LEVELLED_MILLISECONDS = 0.25  # per encrypted input element: encryption and decompression, half each
_CALL_MILLISECONDS = 1.0  # a call without lookups
_LOOKUP_CALL_MILLISECONDS = 50.0  # a call with lookups converts all bootstrapping keys to the Fourier domain first
_BYTES_PER_ELEMENT = 20_000  # a decompressed ciphertext of the usual dimension
_BATCH_BYTES = 2**28  # memory that the inputs and outputs of a batch may take
_LARGEST_AUTOMATIC_BATCH = 64
_LARGEST_LINEAR_BATCH = 16
"""Without lookups a batch is encrypted while the one before is evaluated, so small ones overlap sooner: 64 rows of
30 features took 5.5 ms each in batches of 16 and 9.0 ms in one of 64; 569 rows 4.6 ms and 4.9 ms."""

_LOOKUPS_PER_BATCH = 256  # enough to keep many cores busy and to make the fixed cost small


@dataclass(frozen=True)
class Piece:
    """Rows of one call.

    Attributes
    ----------
    rows : int
        Rows that count, >= 1.
    batched : bool
        Whether the batched function takes them; it pads them to the batch size.
    """

    rows: int
    batched: bool


def row_milliseconds(program: Program, lookups: Mapping[int, int]) -> float:
    """Rough time of a row on one core; for comparing plans."""
    inputs = sum(program.nodes[i].value.size for i in program.inputs)
    return inputs * _LEVELLED_MILLISECONDS + sum(n * lookup_milliseconds(b) for b, n in lookups.items())


def lookup_milliseconds(bit_width: int) -> float:
    """Rough time of one lookup on one core."""
    return LOOKUP_MILLISECONDS.get(bit_width, 2000.0)


def call_milliseconds(lookups: Mapping[int, int]) -> float:
    """Rough fixed time of a call."""
    return _LOOKUP_CALL_MILLISECONDS if lookups else _CALL_MILLISECONDS


def choose_batch_size(program: Program, num_lookups: int) -> int:
    """Rows of the batched function when the user does not say.

    A power of two: at most 64, without lookups 16; at most what brings a batch to 256 lookups (beyond that a call's
    fixed cost no longer shows and all cores are busy); at most what keeps a batch's ciphertexts below 256 MiB.

    Parameters
    ----------
    program : Program
    num_lookups : int
        Of one row.
    """
    elements = sum(program.nodes[i].value.size for i in (*program.inputs, *program.outputs))
    largest = _LARGEST_AUTOMATIC_BATCH if num_lookups else _LARGEST_LINEAR_BATCH
    most = min(largest, _BATCH_BYTES // (_BYTES_PER_ELEMENT * elements))
    if num_lookups:
        most = min(most, _LOOKUPS_PER_BATCH // num_lookups)
    return 1 << max(most, 1).bit_length() - 1


def split_rows(n: int, batch_size: int, row: float, call: float) -> list[Piece]:
    """Group `n` rows into calls.

    Whole batches first; the rest one by one, or as one padded batch where that is cheaper.

    Parameters
    ----------
    n : int
        Rows, >= 0.
    batch_size : int
        Rows of the batched function; 1 if there is none.
    row, call : float
        Rough costs of a row and of a call, in one unit.
    """
    if batch_size == 1:
        return [Piece(1, False)] * n
    pieces = [Piece(batch_size, True)] * (n // batch_size)
    rest = n % batch_size
    if rest and batch_size * row + call < rest * (row + call):
        return [*pieces, Piece(rest, True)]
    return [*pieces, *[Piece(1, False)] * rest]

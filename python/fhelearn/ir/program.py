"""The immutable integer program: values and nodes in SSA order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from fhelearn.ir.interval import Bounds
from fhelearn.typing import IntArray, Provenance

Attribute: TypeAlias = int | bool | str | tuple[int, ...] | IntArray

MAX_ELEMENTS = 2**24
"""Largest number of elements of a value (per row): far above what encryption can run, below what exhausts memory."""


MAX_RANK = 16
"""Most axes of a value, the batch axis not counted: half of what NumPy allows, so that every op has room."""

MAX_WORK, MAX_PROGRAM_WORK = 2**30, 2**32
"""Most steps that inferring the bounds of a node, and of a program, may take; a step is about a nanosecond."""


MAX_PROGRAM_BOUNDS = 2**23
"""Most elements, over all values of a program, that have bounds of their own: below a gigabyte of Python integers."""


@dataclass(frozen=True)
class Value:
    """What a node defines.

    Attributes
    ----------
    shape : tuple of int
        Without the batch axis: at run time the array is ``(n, *shape)``, int64.
    bounds : Bounds
        Inclusive integer bounds of each element.
    provenance : {"proved", "structural", "calibrated"}
        Where the bounds come from: interval arithmetic, a front end's argument, or data plus a margin.
    reason : str
        The argument or the calibration, in a line; empty for proved bounds.
    """

    shape: tuple[int, ...]
    bounds: Bounds
    provenance: Provenance = "proved"
    reason: str = ""

    @property
    def bit_width(self) -> int:
        """Bits that hold every element; derived from the bounds, never stored."""
        return self.bounds.bit_width

    @property
    def signed(self) -> bool:
        """Whether some element may be negative; derived from the bounds, never stored."""
        return self.bounds.signed

    @property
    def size(self) -> int:
        """Number of elements per row."""
        return int(np.prod(self.shape, dtype=object))


@dataclass(frozen=True, eq=False)
class Node:
    """One operation; node ``i`` of a program defines value ``%i``.

    Attributes
    ----------
    op : str
        A key of :data:`fhelearn.ir.OPS`.
    operands : tuple of int
        Indices of earlier nodes.
    attributes : mapping of str to Attribute
        In alphabetical order; arrays are read-only int64.
    value : Value
        What the node defines.
    name : str
        For messages and statistics; may be empty.
    """

    op: str
    operands: tuple[int, ...]
    attributes: Mapping[str, Attribute]
    value: Value
    name: str = ""

    def array(self, name: str) -> IntArray:
        """The attribute `name`, which the op's signature says is an array."""
        value = self.attributes[name]
        assert isinstance(value, np.ndarray)
        return value

    def integer(self, name: str) -> int:
        """The attribute `name`, which the op's signature says is an integer."""
        value = self.attributes[name]
        assert isinstance(value, int)
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        """The attribute `name`, which the op's signature says is a tuple of integers."""
        value = self.attributes[name]
        assert isinstance(value, tuple)
        return value


@dataclass(frozen=True, eq=False)
class Program:
    """A verified, immutable integer program in SSA order; equal programs have equal digests.

    Attributes
    ----------
    nodes : tuple of Node
    outputs : tuple of int
        Indices of the nodes that are returned, in order; at least one.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """Indices of the ``input`` nodes, in the order of the positional inputs."""
        return tuple(i for i, node in enumerate(self.nodes) if node.op == "input")

    @property
    def has_calibrated_bounds(self) -> bool:
        """Whether some bound comes from data, so that unseen inputs may overflow."""
        return any(node.value.provenance == "calibrated" for node in self.nodes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the program's content: what a file of it is checked against."""
        from fhelearn.ir.serialize import content_digest  # the file format sits above this module

        return content_digest(self)

    def label(self, index: int) -> str:
        """How messages call node `index`: ``%3 matmul 'fc1'``."""
        node = self.nodes[index]
        return f"%{index} {node.op}" + (f" '{node.name}'" if node.name else "")

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Program) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        from fhelearn.ir.printer import to_text  # the printer sits above this module

        return to_text(self)

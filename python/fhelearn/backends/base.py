"""What every back end offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from fhelearn.ir import Program
from fhelearn.typing import IntArray


@runtime_checkable
class Backend(Protocol):
    """A program made ready to run.

    The promise that all back ends share: `run` equals :func:`fhelearn.ir.evaluate` on every input inside the declared
    bounds (encrypted execution: up to its stated probability of error).
    """

    @property
    def program(self) -> Program:
        """The program that runs."""
        ...

    def run(self, inputs: Sequence[IntArray]) -> list[IntArray]:
        """Run on a batch.

        Parameters
        ----------
        inputs : sequence of int64 arrays, each (n, *shape of the input)
            One per ``input`` node, in order.

        Returns
        -------
        list of int64 arrays, each (n, *shape of the output)
        """
        ...

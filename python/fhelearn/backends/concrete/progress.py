"""Progress bars, which never fail a computation because a display is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(what: str, total: float, unit: str, shown: bool) -> Iterator[Callable[[float], None]]:
    """A bar on the error stream; yields a function that advances it. Shows nothing if `shown` is false."""
    if not shown or sys.stderr is None:
        yield lambda amount: None
        return
    from tqdm import tqdm  # imported where it is needed: most runs show no bar

    layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} " + unit + " [{elapsed}<{remaining}]"
    with tqdm(total=total, desc=what, unit=unit, bar_format=layout) as bar:
        yield lambda amount: _advance(bar, amount, total)


def _advance(bar: object, amount: float, total: float) -> None:
    bar.update(min(amount, max(total - bar.n, 0.0)))  # type: ignore[attr-defined]

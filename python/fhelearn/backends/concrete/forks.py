"""What a forked child must not inherit: locks that another thread held, and ends of the server process's pipes."""

from __future__ import annotations

import fcntl
import os
import threading
import weakref


class Lock:
    """A mutex that a forked child finds free, whichever thread of its parent held it; a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Forget who holds it."""
        self._lock = threading.Lock()


class Descriptor:
    """An open file descriptor that a forked child closes: with an end of a pipe it would keep the other side alive.

    Parameters
    ----------
    number : int
        Taken over. Where standard streams are closed it may be 0, 1 or 2, which a spawned program takes for its
        standard streams: it is then moved.
    """

    def __init__(self, number: int) -> None:
        if number <= 2:
            try:
                moved = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
            finally:
                os.close(number)
            number = moved
        self.number = number
        _descriptors.add(self)

    def close(self) -> None:
        """Close it, unless it is closed."""
        try:
            _descriptors.remove(self)  # first: afterwards the number may be somebody else's
        except KeyError:
            return
        os.close(self.number)


def pipe() -> tuple[Descriptor, Descriptor]:
    """The reading and the writing end of a new pipe."""
    read, write = os.pipe()
    try:
        reader = Descriptor(read)
    except BaseException:
        os.close(write)
        raise
    try:
        return reader, Descriptor(write)
    except BaseException:
        reader.close()
        raise


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()
_descriptors: set[Descriptor] = set()


def _in_child() -> None:
    for descriptor in list(_descriptors):
        descriptor.close()
    for lock in list(_locks):
        lock.renew()


os.register_at_fork(after_in_child=_in_child)

"""The private folder of a server process: compiled code, the optimizer's cache, and what the process prints."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from fhelearn.backends.concrete.forks import Descriptor
from fhelearn.exceptions import BackendUnavailableError

_SAFE_PATH = re.compile(r"[A-Za-z0-9_./+=@,-]+")
_NAME = re.compile(r"fhelearn-(\d+)-\w+")
_CANDIDATES: tuple[Callable[[], str], ...] = (
    tempfile.gettempdir,
    lambda: "/tmp",
    lambda: "/var/tmp",
    lambda: str(Path.home() / ".cache"),
    os.getcwd,
)


class PrivateFolder:
    """A directory (mode 0700) whose path is safe in an unquoted shell command.

    Its name holds our process's number, and it is locked (`flock`) while our process or the server process lives: what
    processes left that were killed is recognized by that, and deleted when another is made.

    Attributes
    ----------
    path : str
    lock : Descriptor
        The server process inherits it.

    Raises
    ------
    BackendUnavailableError
        If no temporary directory with such a path is writable.
    """

    def __init__(self) -> None:
        parent = _usable_directory()
        _delete_stale(parent)
        self.path = tempfile.mkdtemp(prefix=f"fhelearn-{os.getpid()}-", dir=parent)
        try:
            self.lock = Descriptor(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(self.lock.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.rmdir(self.path)  # it is empty; shutil.rmtree needs a descriptor, which may be what is missing
            raise

    def error_stream(self) -> IO[bytes]:
        """A nameless file for what the server process prints; its descriptor is none of the standard streams'."""
        with tempfile.TemporaryFile(dir=self.path) as file:
            return os.fdopen(fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, 3), "w+b")

    def delete(self) -> None:
        """Delete it, unless it is deleted."""
        self.lock.close()
        with contextlib.suppress(OSError):
            os.rmdir(self.path)  # enough for an empty one: rmtree needs descriptors, of which none may be left
        shutil.rmtree(self.path, ignore_errors=True)


def _existing_candidates() -> Iterator[str]:
    for candidate in _CANDIDATES:
        with contextlib.suppress(OSError, RuntimeError):  # a deleted working directory, a user without a home
            yield candidate()


def _usable_directory() -> str:
    refused = []
    for path in _existing_candidates():
        if _SAFE_PATH.fullmatch(path) and os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK):
            return path
        refused.append(path)
    raise BackendUnavailableError(
        f"no usable temporary directory among {refused}: the linker needs a writable one whose path has only "
        "letters, digits and _ . / + = @ , -; set TMPDIR to such a directory"
    )


def _delete_stale(parent: str) -> None:
    """Delete our user's folders in `parent` whose process is gone and which nobody has locked."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match and not _runs(int(match[1])):
                with contextlib.suppress(OSError):
                    _delete_if_unlocked(entry.path)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _delete_if_unlocked(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            # process numbers are per container, locks are not: a folder of a living process elsewhere stays
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)

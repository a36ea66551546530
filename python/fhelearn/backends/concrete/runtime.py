"""Where concrete-python is found, and how it is imported without side effects.

Only ``concrete.compiler`` is ever imported (0.4 s; no torch, no tracing front end), and only when something needs it.
Importing it replaces the handlers of SIGINT, SIGPIPE and other signals with LLVM's; they are put back here.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import platform
import re
import signal
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import numpy as np

from fhelearn.exceptions import BackendUnavailableError

DISTRIBUTION = "concrete-python"
OLDEST_TESTED = (2, 10)
NEWEST_TESTED = (2, 11)

_REMEDY = "pip install concrete-python; everything but fhe='execute' works without it"
_WHEELS = (
    "wheels exist for CPython 3.9 to 3.12 on Linux x86-64 (glibc 2.28 or newer) and on macOS 13 or newer with arm64; "
    "everything but fhe='execute' works here"
)
_SIGACTION_BYTES = 256  # larger than struct sigaction on any platform that concrete-python has wheels for
import_lock = threading.RLock()
"""Held during imports that happen on first use: a fork in the middle of one would leave the child half a module and a
module lock that nobody releases, so it waits for this (0.4 s)."""
os.register_at_fork(before=import_lock.acquire, after_in_parent=import_lock.release, after_in_child=import_lock.release)
_compiler: Any = None


def unavailable_reason() -> str | None:
    """Why encrypted execution cannot work here, in one line, or None if it can. Imports nothing heavy."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    here = f"Python {python} on {platform.system()} {platform.machine()}"
    try:
        version = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        if _has_wheels():
            return f"concrete-python is not installed ({_REMEDY})"
        return f"concrete-python has no build for {here} ({_WHEELS})"
    if importlib.util.find_spec("concrete") is None:
        return (
            f"concrete-python {version} is registered but its package 'concrete' is missing; reinstall it ({_REMEDY})"
        )
    number = _version_pair(version)
    if number < OLDEST_TESTED or number[0] > NEWEST_TESTED[0]:
        return f"concrete-python {version} is outside the supported range {_range_text()} ({_REMEDY})"
    if _version_pair(np.__version__)[0] >= 2:
        return f"concrete-python {version} needs NumPy 1, NumPy {np.__version__} is installed (pip install 'numpy<2')"
    return None


def is_available() -> bool:
    """Whether encrypted execution can work here. Imports nothing heavy."""
    return unavailable_reason() is None


def require() -> None:
    """Raise BackendUnavailableError, saying why and what works, unless the library can be imported."""
    reason = unavailable_reason()
    if reason is not None:
        raise BackendUnavailableError(f"encrypted execution is not available: {reason}")


def version() -> str:
    """The installed version of concrete-python. Raises BackendUnavailableError if there is none."""
    require()
    return metadata.version(DISTRIBUTION)


def load() -> Any:
    """The module ``concrete.compiler``, imported on first use.

    Returns
    -------
    module
        Has no type stubs; :mod:`fhelearn.backends.concrete.native` is the only caller.

    Raises
    ------
    BackendUnavailableError
        If the library is missing, of an unsupported version, or fails to load.

    Warns
    -----
    RuntimeWarning
        Once, if the version is newer than the tested ones.
    """
    global _compiler
    if _compiler is None:  # sys.modules would show it before it is whole
        with first_import():
            if _compiler is None:
                _compiler = _import_compiler()
    return _compiler


def _import_compiler() -> Any:
    installed = version()
    if _version_pair(installed) > NEWEST_TESTED:
        warnings.warn(
            f"concrete-python {installed} is newer than the tested range {_range_text()}", RuntimeWarning, stacklevel=3
        )
    try:
        with warnings.catch_warnings(), preserved_signals():
            warnings.simplefilter("ignore")  # pkg_resources announces its own removal
            with _pkg_resources():
                importlib.import_module("concrete")
            return importlib.import_module("concrete.compiler")
    except Exception as error:
        raise BackendUnavailableError(
            f"encrypted execution is not available: concrete-python {installed} fails to load: {error}; {_WHEELS}"
        ) from error


@contextmanager
def first_import() -> Iterator[None]:
    """Surround an import that happens on first use: no fork and no Ctrl-C falls into the middle of it."""
    with import_lock, _deferred_interrupt():
        yield


@contextmanager
def _deferred_interrupt() -> Iterator[None]:
    """Deliver Ctrl-C afterwards.

    In the middle of an import it comes out as an ImportError of a native module, or leaves a package half loaded that
    then fails whenever it is used (``asyncio``, under joblib, did).
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield  # only the main thread is interrupted
        return
    pending: list[tuple[int, types.FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: pending.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if pending:
        previous(*pending[0])


@contextmanager
def _pkg_resources() -> Iterator[None]:
    """Let ``concrete/__init__.py`` call ``pkg_resources.declare_namespace`` where setuptools >= 82 has none."""
    try:
        importlib.import_module("pkg_resources")
    except (ImportError, OSError):  # missing, or it trips over a deleted working directory
        yield from _stub_pkg_resources()
    else:
        yield


def _stub_pkg_resources() -> Iterator[None]:
    stub = types.ModuleType("pkg_resources", "Stands in while 'concrete' is imported; its directory is one package.")
    stub.declare_namespace = lambda name: None  # type: ignore[attr-defined]
    sys.modules["pkg_resources"] = stub
    try:
        yield
    finally:
        sys.modules.pop("pkg_resources", None)


@contextmanager
def preserved_signals() -> Iterator[None]:
    """Put every signal's disposition back afterwards; works in any thread, unlike :func:`signal.signal`."""
    libc = ctypes.CDLL(None)
    numbers = [n for n in range(1, int(signal.NSIG)) if n not in (int(signal.SIGKILL), int(signal.SIGSTOP))]
    saved = {}
    for number in numbers:
        buffer = ctypes.create_string_buffer(_SIGACTION_BYTES)
        if libc.sigaction(number, None, buffer) == 0:
            saved[number] = buffer
    try:
        yield
    finally:
        for number, buffer in saved.items():
            libc.sigaction(number, buffer, None)


def _version_pair(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _range_text() -> str:
    return f"{'.'.join(map(str, OLDEST_TESTED))} to {'.'.join(map(str, NEWEST_TESTED))}"


def _has_wheels() -> bool:
    machine = (platform.system(), platform.machine())
    return machine in (("Linux", "x86_64"), ("Darwin", "arm64")) and (3, 9) <= sys.version_info[:2] <= (3, 12)

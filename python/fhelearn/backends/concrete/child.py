"""The server process: compiles, generates keys and evaluates; started by :mod:`.launch`, never by hand.

Concrete's compiler, key generation and evaluation replace the SIGINT handler by one that kills the process, hold the
interpreter lock and may abort on a panic. Here that harms nobody: the parent reports an exception and starts another
one. The process exits when the parent's end of the pipe closes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import shutil
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fhelearn.backends.concrete import native, runtime
from fhelearn.backends.concrete.wire_format import read_frame, write_frame
from fhelearn.exceptions import BackendUnavailableError

_MAX_PROGRAMS = 64
_MAX_KEYS = 2  # a decompressed key set takes 0.1 to 2 GB
_PARALLEL_CALLS = 2  # decompressing inputs is single-threaded: two calls at once keep the cores busy on linear circuits

Reply = tuple[dict[str, Any], list[bytes]]


class _Cache:
    """A small thread-safe mapping that forgets what was not used lately."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Any:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def put(self, key: str, value: Any) -> None:
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            while len(self._items) > self._size:
                self._items.popitem(last=False)


class _Lifeline:
    """Ends the process at once if the parent dies while native code holds the interpreter lock.

    The kernel sends SIGIO when the parent's end of a pipe closes; its default action, on Linux, is to terminate. Key
    generation may take minutes, in which no Python thread would notice that nobody waits for the keys any more.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._holders = 0
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        with self._lock:
            self._holders += 1
            self._notify(True)
            if select.select([self._descriptor], [], [], 0)[0]:  # nothing is ever written: the parent is gone
                os._exit(0)
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                self._notify(self._holders > 0)

    def _notify(self, wanted: bool) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | os.O_ASYNC if wanted else flags & ~os.O_ASYNC)


class _Service:
    """The methods that the parent may call."""

    def __init__(self, folder: str, lifeline: _Lifeline) -> None:
        self._folder = folder
        self._lifeline = lifeline
        self._programs = _Cache(_MAX_PROGRAMS)
        self._keys = _Cache(_MAX_KEYS)

    def compile(self, header: dict[str, Any], blobs: list[bytes]) -> Reply:
        folder = tempfile.mkdtemp(prefix="compile-", dir=self._folder)
        loaded = native.compile_module(blobs[0].decode(), native.Settings(**header["settings"]), folder)
        self._programs.put(header["program"], loaded.server)
        return {"feedback": loaded.feedback}, [loaded.info]

    def keygen(self, header: dict[str, Any], blobs: list[bytes]) -> Reply:
        # the secrets are referred to by nothing once the reply is written, but the memory that held them is not wiped
        with self._lifeline.armed():
            keyset, evaluation_keys = native.generate_keys(blobs[0])
        self._keys.put(header["keys"], native.load_evaluation_keys(evaluation_keys))
        return {}, [keyset, evaluation_keys]

    def load_keys(self, header: dict[str, Any], blobs: list[bytes]) -> Reply:
        self._keys.put(header["keys"], native.load_evaluation_keys(blobs[0]))
        return {}, []

    def run(self, header: dict[str, Any], blobs: list[bytes]) -> Reply:
        program, keys = self._programs.get(header["program"]), self._keys.get(header["keys"])
        missing = [name for name, found in (("program", program), ("keys", keys)) if found is None]
        if missing:
            return {"missing": missing}, []
        results: list[bytes] = []
        width = header["arguments"]
        for position, function in enumerate(header["functions"]):
            results += native.call(program, function, blobs[position * width : (position + 1) * width], keys)
        return {}, results


def main(arguments: list[str]) -> None:
    """Serve requests.

    Parameters
    ----------
    arguments : list of str
        Descriptors of requests, replies and the lifeline, and the folder to compile in.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold secret keys
    source, sink, lifeline, folder = int(arguments[0]), int(arguments[1]), int(arguments[2]), arguments[3]
    service = _Service(folder, _Lifeline(lifeline))
    methods: dict[str, Callable[[dict[str, Any], list[bytes]], Reply]] = {
        "compile": service.compile,
        "keygen": service.keygen,
        "load_keys": service.load_keys,
        "run": service.run,
    }
    lock = threading.Lock()
    with contextlib.suppress(BackendUnavailableError):  # raised again, and reported, at the first request
        runtime.load()
    write_frame(sink, {"ready": True})

    def answer(header: dict[str, Any], blobs: list[bytes]) -> None:
        try:
            reply, results = methods[header["method"]](header, blobs)
        except Exception as error:  # whatever the native code raises is the parent's to translate
            reply, results = {"error": type(error).__name__, "message": str(error)}, []
        sys.stderr.flush()
        with lock:
            write_frame(sink, {**reply, "id": header["id"]}, results)

    with ThreadPoolExecutor(_PARALLEL_CALLS) as pool:
        while (frame := read_frame(source)) is not None:
            pool.submit(answer, *frame)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)  # the parent is gone or has closed the pipe: do not wait for calls nobody wants

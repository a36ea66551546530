"""The parent's end of the server process: requests, replies, crashes, Ctrl-C and the private folder."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import IO, Any

from fhelearn.backends.concrete import runtime
from fhelearn.backends.concrete.wire_format import read_frame, write_frame
from fhelearn.exceptions import BackendUnavailableError, FhelearnError

_SAFE_PATH = re.compile(r"[A-Za-z0-9_./+=@,-]+")
_STDERR_TAIL = 4000

Reply = tuple[dict[str, Any], list[bytes]]


class ServerProcessError(FhelearnError, RuntimeError):
    """The process that runs the native code died; what was asked of it has no result, this process is unharmed."""


class NativeError(FhelearnError, RuntimeError):
    """The native code refused a request.

    Attributes
    ----------
    diagnostics : str
        What it printed on its error stream meanwhile; may be empty.
    """

    def __init__(self, message: str, diagnostics: str) -> None:
        super().__init__(message + (f"\n{diagnostics}" if diagnostics else ""))
        self.diagnostics = diagnostics


def private_folder() -> str:
    """Make a directory (mode 0700) whose path is safe in an unquoted shell command.

    Raises
    ------
    BackendUnavailableError
        If no temporary directory with such a path is writable.
    """
    candidates = [tempfile.gettempdir(), "/tmp", "/var/tmp", str(Path.home() / ".cache"), os.getcwd()]
    usable = [c for c in candidates if _SAFE_PATH.fullmatch(c) and os.path.isdir(c) and os.access(c, os.W_OK | os.X_OK)]
    if not usable:
        raise BackendUnavailableError(
            f"no usable temporary directory among {candidates}: the linker needs a writable one whose path has only "
            "letters, digits and _ . / + = @ , -; set TMPDIR to such a directory"
        )
    return tempfile.mkdtemp(prefix="fhelearn-", dir=usable[0])


class ServerProcess:
    """A spawned Python that holds compiled programs and evaluation keys; requests may come from any thread."""

    def __init__(self) -> None:
        runtime.require()
        self.owner = os.getpid()
        self._folder = private_folder()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._lock = threading.Lock()
        self._pending: dict[int, tuple[Future[Reply], int]] = {}  # with the size of the error stream at the request
        self._next = 0
        self._closed = ""
        request_read, self._requests = os.pipe()
        self._replies, reply_write = os.pipe()
        lifeline_read, self._lifeline = os.pipe()
        given = (request_read, reply_write, lifeline_read)
        command = [sys.executable, "-m", "fhelearn.backends.concrete.child", *map(str, given), self._folder]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                pass_fds=given,
                env=_environment(self._folder),
                start_new_session=True,  # the terminal's Ctrl-C is ours to handle
            )
        finally:
            for descriptor in given:
                os.close(descriptor)
        self._receiver = threading.Thread(target=self._receive, name="fhelearn-server-replies", daemon=True)
        self._receiver.start()

    @property
    def alive(self) -> bool:
        """Whether requests can be sent, from this process (a forked child must start its own)."""
        return not self._closed and self.owner == os.getpid() and self._process.poll() is None

    def submit(self, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> Future[Reply]:
        """Send a request; the future holds the reply, or raises NativeError or ServerProcessError."""
        future: Future[Reply] = Future()
        with self._lock:
            if self._closed:
                raise ServerProcessError(self._closed)
            number = self._next
            self._next += 1
            self._pending[number] = (future, os.fstat(self._stderr.fileno()).st_size)
            try:
                # if the process has died, the receiving thread sees the end of the stream and fails what is pending
                with contextlib.suppress(BrokenPipeError):
                    write_frame(self._requests, {**header, "id": number}, blobs)
            except BaseException:
                # Ctrl-C in the middle of a frame leaves the stream unusable
                self._closed = "the server process was stopped: a request to it was interrupted"
                self._process.kill()
                raise
        return future

    def wait(self, future: Future[Reply]) -> Reply:
        """The reply; on Ctrl-C the process is killed, so that its work stops, and KeyboardInterrupt is raised."""
        try:
            return future.result()
        except (KeyboardInterrupt, SystemExit):
            self.close("the server process was stopped by Ctrl-C")
            raise

    def wait_briefly(self, future: Future[Reply], seconds: float) -> None:
        """Wait until the reply is there or `seconds` have passed; on Ctrl-C as :meth:`wait`."""
        try:
            wait_for([future], timeout=seconds)
        except (KeyboardInterrupt, SystemExit):
            self.close("the server process was stopped by Ctrl-C")
            raise

    def request(self, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> Reply:
        """:meth:`submit` and :meth:`wait`."""
        return self.wait(self.submit(header, blobs))

    def close(self, reason: str = "the server process was closed") -> None:
        """End the process and delete its folder; pending requests fail with `reason`."""
        self._closed = self._closed or reason
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()
            self._receiver.join()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _diagnostics(self, offset: int = 0) -> str:
        """The last of what the process has printed since its streams had `offset` bytes."""
        descriptor = self._stderr.fileno()
        start = max(offset, os.fstat(descriptor).st_size - _STDERR_TAIL)
        return os.pread(descriptor, _STDERR_TAIL, start).decode(errors="replace").strip()

    def _receive(self) -> None:
        while (frame := read_frame(self._replies)) is not None:
            header, blobs = frame
            with self._lock:
                future, offset = self._pending.pop(header["id"])
            if header.get("error") == BackendUnavailableError.__name__:
                future.set_exception(BackendUnavailableError(header["message"]))
            elif "error" in header:
                future.set_exception(NativeError(header["message"], self._diagnostics(offset)))
            else:
                future.set_result((header, blobs))
        self._fail_pending()

    def _fail_pending(self) -> None:
        status = self._process.wait()
        with self._lock:
            self._closed = (
                self._closed or f"the server process died ({_death(status)}); its last words:\n{self._diagnostics()}"
            )
            pending, self._pending = list(self._pending.values()), {}
            os.close(self._requests)
            os.close(self._replies)
            os.close(self._lifeline)
        for future, _ in pending:
            future.set_exception(ServerProcessError(self._closed))
        self._stderr.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _environment(folder: str) -> dict[str, str]:
    """Environment of the server process.

    Our own import path; OpenMP threads that sleep between calls, so that they do not slow encryption down; temporary
    files in `folder`, because the optimizer leaves a cache there.
    """
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {"KMP_BLOCKTIME": "0", **os.environ, "PYTHONPATH": path, "TMPDIR": folder}


def _death(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


_current: ServerProcess | None = None
_current_lock = threading.Lock()


def server() -> ServerProcess:
    """The server process of this process, started on first use, and again after a crash, Ctrl-C or fork."""
    global _current
    with _current_lock:
        if _current is None or not _current.alive:
            if _current is not None and _current.owner == os.getpid():
                _current.close()
            _current = ServerProcess()
        return _current


def shut_down() -> None:
    """End the server process of this process, if one runs; the next request starts another."""
    global _current
    with _current_lock:
        if _current is not None:
            _current.close()
        _current = None


atexit.register(shut_down)

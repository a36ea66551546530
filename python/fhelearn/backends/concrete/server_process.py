"""The parent's end of the server process: requests, replies, crashes, Ctrl-C, forks."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from fhelearn.backends.concrete import forks, launch, runtime
from fhelearn.backends.concrete.folder import PrivateFolder
from fhelearn.backends.concrete.wire_format import read_frame, write_frame
from fhelearn.exceptions import BackendUnavailableError, FhelearnError

_STDERR_TAIL = 4000
_CTRL_C = "the server process was stopped by Ctrl-C"

Reply = tuple[dict[str, Any], list[bytes]]


class ServerProcessError(FhelearnError, RuntimeError):
    """The process that runs the native code died; what was asked of it has no result, this process is unharmed."""


class ServerStoppedError(ServerProcessError):
    """The process was stopped on purpose, by Ctrl-C or shutdown; the request itself is not to blame."""


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


class ServerProcess:
    """A spawned Python that holds compiled programs and evaluation keys; requests may come from any thread.

    Use :func:`server`: a Ctrl-C in the middle of the constructor may leave something behind, and that one is called in
    a thread which no Ctrl-C reaches.
    """

    def __init__(self) -> None:
        runtime.require()
        self.owner = os.getpid()
        self._lock = forks.Lock()
        self._pending: dict[int, tuple[Future[Reply], int]] = {}  # with the size of the error stream at the request
        self._next = 0
        self._ready = False  # whether it has said that it serves
        self._stopped = ""  # why it was ended on purpose
        self._death = ""  # how it ended by itself
        with contextlib.ExitStack() as undo:
            self._folder = PrivateFolder()
            undo.callback(self._folder.delete)
            self._stderr = undo.enter_context(self._folder.error_stream())
            ends = []
            for _ in range(3):
                pipe = forks.pipe()
                for end in pipe:
                    undo.callback(end.close)
                ends.append(pipe)
            (request_read, self._requests), (self._replies, reply_write), (lifeline_read, self._lifeline) = ends
            given = (request_read, reply_write, lifeline_read)
            self._process = launch.start(given, self._folder, self._stderr)
            undo.callback(self._process.wait)
            undo.callback(self._process.kill)
            for end in given:
                end.close()
            self._receiver = threading.Thread(target=self._receive, name="fhelearn-server-replies", daemon=True)
            self._receiver.start()
            undo.pop_all()

    @property
    def folder(self) -> str:
        """Path of its private folder."""
        return self._folder.path

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether requests can be sent, from this process (a forked child must start its own)."""
        return not self._stopped and self.owner == os.getpid() and self._process.poll() is None

    @property
    def busy(self) -> bool:
        """Whether a request has no reply yet."""
        return bool(self._pending)

    def submit(self, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> Future[Reply]:
        """Send a request.

        Returns
        -------
        Future
            Holds the reply, or raises NativeError (refused), ServerStoppedError (stopped on purpose),
            BackendUnavailableError (never started) or ServerProcessError (died).
        """
        future: Future[Reply] = Future()
        with self._lock:
            if self._stopped or self._death:
                raise self._ending()
            number = self._next
            self._next += 1
            self._pending[number] = (future, os.fstat(self._stderr.fileno()).st_size)
            try:
                # if the process has died, the receiving thread sees the end of the stream and fails what is pending
                with contextlib.suppress(BrokenPipeError):
                    write_frame(self._requests.number, {**header, "id": number}, blobs)
            except BaseException:
                # Ctrl-C in the middle of a frame leaves the stream unusable
                self._stopped = "the server process was stopped: a request to it was interrupted"
                self._process.kill()
                raise
        return future

    def close(self, reason: str = "the server process was closed") -> None:
        """End the process and delete its folder; pending requests fail with `reason`."""
        if self.owner != os.getpid():
            return
        if self._process.poll() is None:
            self._stopped = self._stopped or reason
        self._process.kill()
        self._process.wait()
        self._receiver.join()
        self._folder.delete()

    def disown(self) -> None:
        """In a forked child: it is no child of this process, which must not wait for it or complain that it runs."""
        self._process.returncode = 0

    def _diagnostics(self, offset: int = 0) -> str:
        """The last of what the process has printed since its streams had `offset` bytes."""
        descriptor = self._stderr.fileno()
        start = max(offset, os.fstat(descriptor).st_size - _STDERR_TAIL)
        return os.pread(descriptor, _STDERR_TAIL, start).decode(errors="replace").strip()

    def _receive(self) -> None:
        try:
            while (frame := read_frame(self._replies.number)) is not None:
                self._settle(*frame)
        finally:
            self._fail_pending()

    def _settle(self, header: dict[str, Any], blobs: list[bytes]) -> None:
        if header.get("ready"):
            self._ready = True
            return
        with self._lock:
            future, offset = self._pending.pop(header["id"])
        if header.get("error") == BackendUnavailableError.__name__:
            future.set_exception(BackendUnavailableError(header["message"]))
        elif "error" in header:
            future.set_exception(NativeError(header["message"], self._diagnostics(offset)))
        else:
            future.set_result((header, blobs))

    def _fail_pending(self) -> None:
        """At the end of the stream, or if a reply makes no sense: the process is of no more use."""
        with contextlib.suppress(Exception):
            self._process.wait(timeout=10)  # it has closed its end: it is about to exit
        self._process.kill()
        status = self._process.wait()
        with self._lock:
            self._death = f"{_death(status)}; its last words:\n{self._diagnostics()}"
            pending, self._pending = list(self._pending.values()), {}
            for end in (self._requests, self._replies, self._lifeline):
                end.close()
        for future, _ in pending:
            future.set_exception(self._ending())
        self._stderr.close()
        self._folder.delete()

    def _ending(self) -> FhelearnError:
        """What to raise for a request that cannot be answered any more."""
        if self._stopped:
            return ServerStoppedError(self._stopped)
        if not self._ready:
            return BackendUnavailableError(f"the server process did not start: {self._death}")
        return ServerProcessError(f"the server process died: {self._death}")


def _death(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


_current: ServerProcess | None = None
_current_lock = forks.Lock()
_exiting = False


def server() -> ServerProcess:
    """The server process of this process, started on first use, and again after a crash, Ctrl-C or fork.

    Raises
    ------
    BackendUnavailableError
        If the library is missing, or the process cannot be started. It may also turn out later, by the first reply.
    """
    global _current
    with _current_lock:
        if _exiting:
            raise ServerProcessError("Python is exiting: no server process is started any more")
        if _current is None or not _current.alive:
            if _current is not None:
                _current.close()
            _current = _started()
        return _current


def _started() -> ServerProcess:
    """A new process, made in a thread of its own: Ctrl-C strikes the main thread only, and so never halfway."""
    made: Future[ServerProcess] = Future()

    def make() -> None:
        try:
            made.set_result(ServerProcess())
        except BaseException as error:
            made.set_exception(error)

    try:
        threading.Thread(target=make, name="fhelearn-server-start", daemon=True).start()
        return made.result()
    except (KeyboardInterrupt, SystemExit):
        made.add_done_callback(lambda future: None if future.exception() else future.result().close(_CTRL_C))
        raise


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Work that asks the server process: on Ctrl-C anywhere in it, the process is ended if it is busy with anything."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        process = _current
        if process is not None and process.busy:
            process.close(_CTRL_C)
        raise


def call(
    header: dict[str, Any], blobs: Sequence[bytes] = (), meanwhile: Callable[[Future[Reply]], None] | None = None
) -> Reply:
    """The reply to a request; asks a new process once more if somebody else's Ctrl-C stopped the first.

    Parameters
    ----------
    header : dict
    blobs : sequence of bytes
    meanwhile : callable, optional
        Called with the future while it is pending.

    Raises
    ------
    NativeError, ServerProcessError, BackendUnavailableError
        See :meth:`ServerProcess.submit`.
    """
    with interruptible():
        try:
            return _ask(header, blobs, meanwhile)
        except ServerStoppedError:
            return _ask(header, blobs, meanwhile)


def _ask(header: dict[str, Any], blobs: Sequence[bytes], meanwhile: Callable[[Future[Reply]], None] | None) -> Reply:
    pending = server().submit(header, blobs)
    if meanwhile is not None:
        meanwhile(pending)
    return pending.result()


def shut_down() -> None:
    """End the server process of this process, if one runs; the next request starts another."""
    global _current
    with _current_lock:
        if _current is not None:
            _current.close()
        _current = None


def _at_exit() -> None:
    global _exiting
    _exiting = True
    shut_down()


def _in_forked_child() -> None:
    global _current
    if _current is not None:
        _current.disown()
    _current = None


os.register_at_fork(after_in_child=_in_forked_child)
atexit.register(_at_exit)

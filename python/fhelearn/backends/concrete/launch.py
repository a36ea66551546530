"""How the server process is started: which Python, what it may import, and what it prints into."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import IO

import fhelearn
from fhelearn.backends.concrete.folder import PrivateFolder
from fhelearn.backends.concrete.forks import Descriptor
from fhelearn.exceptions import BackendUnavailableError

_BOOTSTRAP = """\
import sys
sys.path[:] = {path!r}
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("fhelearn", {file!r}, submodule_search_locations={locations!r})
package = sys.modules["fhelearn"] = module_from_spec(spec)
spec.loader.exec_module(package)
from fhelearn.backends.concrete.child import main
main(sys.argv[1:])
"""
"""Nothing is imported before the path is set (``-P`` would do half of that, from Python 3.11 on). The package is this
process's own, wherever another one may lie on the path."""


def start(given: Sequence[Descriptor], folder: PrivateFolder, stream: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the server process.

    Parameters
    ----------
    given : sequence of Descriptor
        Requests, replies and the lifeline: the process inherits them.
    folder : PrivateFolder
        Its working directory, and where it compiles.
    stream : file
        Gets what it prints.

    Raises
    ------
    BackendUnavailableError
        If there is no Python to start, or it cannot be started.
    """
    if not sys.executable:
        raise BackendUnavailableError(
            "encrypted execution needs a process of its own, and this embedded Python does not know its interpreter: "
            "set sys.executable to the path of one"
        )
    bootstrap = _BOOTSTRAP.format(path=_import_path(), file=fhelearn.__file__, locations=list(fhelearn.__path__))
    numbers = [descriptor.number for descriptor in given]
    try:
        return subprocess.Popen(
            [sys.executable, "-c", bootstrap, *map(str, numbers), folder.path],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            pass_fds=(*numbers, folder.lock.number),
            cwd=folder.path,
            env=_environment(folder.path),
            start_new_session=True,  # the terminal's Ctrl-C is ours to handle
        )
    except OSError as error:
        raise BackendUnavailableError(
            f"the server process did not start: {error}; sys.executable is {sys.executable!r}, which must be the path "
            "of a Python interpreter"
        ) from error


def _import_path() -> list[str]:
    """Our own import path, absolute, with the working directory last: what lies there must not pass for a library."""
    here = ""
    with contextlib.suppress(OSError):  # it may have been deleted
        here = os.getcwd()
    entries = [e for e in sys.path if isinstance(e, str)]  # Python itself passes over others, such as pathlib.Path
    if not here:
        return [e for e in entries if os.path.isabs(e)]
    absolute = list(dict.fromkeys(os.path.join(here, e) if e else here for e in entries))
    same = {e for e in absolute if os.path.realpath(e) == os.path.realpath(here)}
    return [e for e in absolute if e not in same] + [here] * bool(same)


def _environment(folder: str) -> dict[str, str]:
    """Environment of the server process.

    OpenMP threads that sleep between calls, so that they do not slow encryption down; temporary files in `folder`,
    because the optimizer leaves a cache there.
    """
    return {"KMP_BLOCKTIME": "0", **os.environ, "TMPDIR": folder}

"""The process that runs native code: Ctrl-C, crashes, folders, missing tools. Each case runs in a Python of its own."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.fhe

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
from fhelearn.backends.concrete import *
from fhelearn.backends.concrete import server_process
from fhelearn.ir import ProgramBuilder

def lookups(bits, count):
    b = ProgramBuilder()
    x = b.emit("input", shape=(count,), lo=0, hi=2**bits - 1)
    return b.build(b.emit("table_lookup", x, lo=0, table=np.arange(2**bits)))

def linear(factor=2):
    b = ProgramBuilder()
    x = b.emit("input", shape=(3,), lo=0, hi=7)
    return b.build(b.emit("multiply_constant", x, value=np.array(factor)))

def still_works():
    circuit = compile_program(linear(), CircuitOptions(batch_size=1))
    assert circuit.execute([np.array([[1, 2, 3]])])[0].tolist() == [[2, 4, 6]]
    print("still works", flush=True)

def ready():
    print("ready", flush=True)
"""


def start(script: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **environment},
    )


def output_of(script: str, **environment: str) -> str:
    process = start(script, **environment)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, f"exit {process.returncode}\n{out}\n{err}"
    return out


def interrupt(script: str, delay: float) -> str:
    """Send SIGINT `delay` seconds after the script says it is ready; it must end in peace."""
    process = start(script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.stderr.read() if process.stderr else ""
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, f"exit {process.returncode}\n{out}\n{err}"
    return out


def test_ctrl_c_during_key_generation_leaves_python_alive() -> None:
    out = interrupt(
        """
        circuit = compile_program(lookups(7, 1), CircuitOptions(batch_size=1))
        ready()
        try:
            circuit.keygen()
        except KeyboardInterrupt:
            print("interrupted")
        still_works()
        """,
        delay=0.7,
    )
    assert out == "interrupted\nstill works\n"


def test_ctrl_c_during_key_generation_with_a_bar_leaves_python_alive() -> None:
    out = interrupt(
        """
        circuit = compile_program(lookups(7, 1), CircuitOptions(batch_size=1))
        ready()
        try:
            circuit.keygen(progress=True)
        except KeyboardInterrupt:
            print("interrupted")
        still_works()
        """,
        delay=0.7,
    )
    assert out == "interrupted\nstill works\n"


def test_ctrl_c_during_evaluation_leaves_python_alive_and_the_circuit_usable() -> None:
    out = interrupt(
        """
        circuit = compile_program(lookups(4, 150), CircuitOptions(batch_size=1))
        circuit.keygen()
        sample = circuit.encrypt([np.zeros((1, 150), dtype=np.int64)])
        ready()
        try:
            circuit.run(sample)
        except KeyboardInterrupt:
            print("interrupted")
        still_works()
        small = compile_program(lookups(4, 2), CircuitOptions(batch_size=1))
        small.keys = circuit.keys if small.parameters == circuit.parameters else None
        print(small.execute([np.array([[3, 5]])])[0].tolist())
        """,
        delay=0.5,
    )
    assert out == "interrupted\nstill works\n[[3, 5]]\n"


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.35, 0.6])
def test_ctrl_c_during_import_or_compilation_leaves_python_alive(delay: float) -> None:
    out = interrupt(
        """
        ready()
        try:
            for factor in range(3, 60):
                compile_program(linear(factor), CircuitOptions(batch_size=8)).execute([np.array([[1, 2, 3]])])
        except KeyboardInterrupt:
            print("interrupted")
        still_works()
        """,
        delay,
    )
    assert out == "interrupted\nstill works\n"


def test_ctrl_c_after_concurrent_runs_is_an_ordinary_one() -> None:
    out = interrupt(
        """
        from concurrent.futures import ThreadPoolExecutor
        circuit = compile_program(linear(), CircuitOptions(batch_size=1))
        circuit.keygen()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: circuit.execute([np.full((3, 3), i % 8)]), range(16)))
        try:
            ready()
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted")
        """,
        delay=0.2,
    )
    assert out == "interrupted\n"


def test_importing_the_library_leaves_every_signal_handler_in_place() -> None:
    out = output_of(
        """
        import ctypes
        from fhelearn.backends.concrete import runtime
        libc = ctypes.CDLL(None)
        def handlers():
            found = []
            for number in range(1, 32):
                buffer = ctypes.create_string_buffer(256)
                libc.sigaction(number, None, buffer)
                found.append(buffer.raw[:8])
            return found
        before = handlers()
        runtime.load()
        print(handlers() == before, "torch" in sys.modules, "concrete.fhe" in sys.modules)
        """
    )
    assert out == "True False False\n"


def test_a_crash_of_native_code_is_an_exception_and_the_next_call_works() -> None:
    out = output_of(
        """
        circuit = compile_program(lookups(4, 100), CircuitOptions(batch_size=1))
        circuit.keygen()
        sample = circuit.encrypt([np.zeros((1, 100), dtype=np.int64)])
        process = server_process.server()
        threading.Timer(0.2, lambda: os.kill(process._process.pid, signal.SIGKILL)).start()
        try:
            circuit.run(sample)
        except ServerProcessError as error:
            print("SIGKILL" in str(error))
        still_works()
        print(circuit.execute([np.zeros((1, 100), dtype=np.int64)])[0].sum())
        """
    )
    assert out == "True\nstill works\n0\n"


def test_a_forked_child_runs_with_a_process_of_its_own() -> None:
    """Concrete's own key generation hangs in a forked child."""
    out = output_of(
        """
        circuit = compile_program(lookups(2, 2), CircuitOptions(batch_size=1))
        print(circuit.execute([np.array([[1, 2]])])[0].tolist(), flush=True)
        child = os.fork()
        if not child:
            circuit.keygen(force=True)
            print(circuit.execute([np.array([[3, 0]])])[0].tolist(), flush=True)
            server_process.shut_down()
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert out == "[[1, 2]]\n[[3, 0]]\n0\n"


@pytest.mark.parametrize("name", ["plain", "with space and 'quotes'; $(touch oops)"])
def test_temporary_folders_work_with_any_name_and_are_left_clean(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    before = set(os.listdir("/tmp"))
    out = output_of("still_works()\nprint(server_process.server()._folder, flush=True)", TMPDIR=str(folder))
    used = Path(out.splitlines()[1])
    assert " " not in str(used)
    assert not used.exists()
    assert not list(folder.iterdir())
    assert not [p for p in set(os.listdir("/tmp")) - before if p == used.name]


def test_the_compilers_folder_is_private_and_emptied_while_the_process_lives() -> None:
    out = output_of(
        """
        still_works()
        folder = server_process.server()._folder
        left = [name for name in os.listdir(folder) if name.startswith("compile-")]
        print(oct(os.stat(folder).st_mode & 0o777), left)
        """
    )
    assert out == "still works\n0o700 []\n"


def test_the_server_process_ends_with_its_parent() -> None:
    process = start("still_works()\nprint(server_process.server()._process.pid, flush=True)\nos.kill(os.getpid(), 9)")
    out, _ = process.communicate(timeout=60)
    child = int(out.splitlines()[1])
    for _ in range(100):
        if not _runs(child):
            return
        time.sleep(0.1)
    pytest.fail("the server process outlives its parent")


def test_the_server_process_ends_with_its_parent_even_while_it_makes_keys() -> None:
    """Key generation holds the interpreter lock for minutes at eight bits."""
    process = start(
        """
        circuit = compile_program(lookups(8, 1), CircuitOptions(batch_size=1))
        print(server_process.server()._process.pid, flush=True)
        threading.Timer(1.0, lambda: os.kill(os.getpid(), 9)).start()
        circuit.keygen()
        """
    )
    out, _ = process.communicate(timeout=60)
    child = int(out)
    for _ in range(100):
        if not _runs(child):
            return
        time.sleep(0.1)
    pytest.fail("the server process outlives its parent")


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as status:
            return status.read().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_missing_linker_is_named_with_its_remedy(tmp_path: Path) -> None:
    out = output_of(
        """
        from fhelearn.exceptions import BackendUnavailableError
        try:
            still_works()
        except BackendUnavailableError as error:
            print("binutils" in str(error))
        """,
        PATH=str(tmp_path),
    )
    assert out == "True\n"


def test_a_missing_pkg_resources_is_survived(tmp_path: Path) -> None:
    """Setuptools 82 dropped the module that concrete's package file calls."""
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import sys, importlib.machinery
            class Hide:
                @staticmethod
                def find_spec(name, path=None, target=None):
                    if name == "pkg_resources":
                        raise ModuleNotFoundError(name)
                    return None
            sys.meta_path.insert(0, Hide)
            """
        )
    )
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + "still_works()\nprint('pkg_resources' in sys.modules)"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *(p for p in sys.path if p)])},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == "still works\nFalse\n"
    assert "pkg_resources" not in process.stderr

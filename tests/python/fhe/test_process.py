"""The process that runs native code: Ctrl-C, crashes, folders, missing tools. Each case runs in a Python of its own."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.python.fhe.processes import PRELUDE, ends, interrupt, output_of, start

pytestmark = pytest.mark.fhe


@pytest.mark.parametrize("arguments", ["", "progress=True"])
def test_ctrl_c_during_key_generation_leaves_python_alive(arguments: str) -> None:
    out = interrupt(
        f"""
        circuit = compile_program(lookups(7, 1), CircuitOptions(batch_size=1))
        ready()
        try:
            circuit.keygen({arguments})
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


def test_ctrl_c_in_the_middle_of_the_import_is_delivered_after_it() -> None:
    out = output_of(
        """
        import importlib
        from fhelearn.backends.concrete import runtime

        signal.signal(signal.SIGINT, signal.default_int_handler)
        whole = importlib.import_module

        def interrupted(name, package=None):
            if name == "concrete.compiler":
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            return whole(name, package)

        importlib.import_module = interrupted
        for attempt in range(2):
            try:
                runtime.load()
            except KeyboardInterrupt:
                print("interrupted")
            importlib.import_module = whole
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        still_works()
        """
    )
    assert out == "interrupted\nstill works\n"


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
        threading.Timer(0.2, lambda: os.kill(process.pid, signal.SIGKILL)).start()
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
    out = output_of("still_works()\nprint(server_process.server().folder, flush=True)", TMPDIR=str(folder))
    used = Path(out.splitlines()[1])
    assert " " not in str(used)
    assert not used.exists()
    assert not list(folder.iterdir())
    assert not [p for p in set(os.listdir("/tmp")) - before if p == used.name]


def test_the_compilers_folder_is_private_and_emptied_while_the_process_lives() -> None:
    out = output_of(
        """
        still_works()
        folder = server_process.server().folder
        left = [name for name in os.listdir(folder) if name.startswith("compile-")]
        print(oct(os.stat(folder).st_mode & 0o777), left)
        """
    )
    assert out == "still works\n0o700 []\n"


def test_the_server_process_ends_with_its_parent() -> None:
    process = start("still_works()\nprint(server_process.server().pid, flush=True)\nos.kill(os.getpid(), 9)")
    out, _ = process.communicate(timeout=60)
    child = int(out.splitlines()[1])
    assert ends(child)


def test_the_server_process_ends_with_its_parent_even_while_it_makes_keys() -> None:
    """Key generation holds the interpreter lock for minutes at eight bits."""
    process = start(
        """
        circuit = compile_program(lookups(8, 1), CircuitOptions(batch_size=1))
        print(server_process.server().pid, flush=True)
        threading.Timer(1.0, lambda: os.kill(os.getpid(), 9)).start()
        circuit.keygen()
        """
    )
    out, _ = process.communicate(timeout=60)
    child = int(out)
    assert ends(child)


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


def test_ctrl_c_in_one_thread_does_not_fail_the_others() -> None:
    out = interrupt(
        """
        circuit = compile_program(lookups(4, 64), CircuitOptions(batch_size=1))
        circuit.keygen()
        rows = np.full((6, 64), 3)
        results = []
        def run():
            results.append(int(circuit.execute([rows])[0].sum()))
        def make():
            results.append(compile_program(lookups(6, 1), CircuitOptions(batch_size=1)).keygen() is not None)
        threads = [threading.Thread(target=run), threading.Thread(target=run), threading.Thread(target=make)]
        for thread in threads:
            thread.start()
        ready()
        try:
            circuit.execute([rows])
        except KeyboardInterrupt:
            print("interrupted")
        for thread in threads:
            thread.join()
        print(sorted(results))
        """,
        delay=0.5,
    )
    assert out == "interrupted\n[True, 1152, 1152]\n"


def test_ctrl_c_outside_a_wait_stops_the_server_process_too() -> None:
    """While rows are encrypted or decrypted here, others are evaluated there."""
    out = output_of(
        """
        circuit = compile_program(lookups(4, 150), CircuitOptions(batch_size=1))
        circuit.keygen()
        rows = np.zeros((3, 150), dtype=np.int64)
        circuit.execute([rows[:1]])
        process = server_process.server()
        genuine, calls = circuit._encrypt_piece, []
        def encrypt(*arguments):
            calls.append(None)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return genuine(*arguments)
        circuit._encrypt_piece = encrypt
        try:
            circuit.execute([rows])
        except KeyboardInterrupt:
            print("interrupted", process.alive)
        still_works()
        """
    )
    assert out == "interrupted False\nstill works\n"

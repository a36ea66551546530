"""Starting the server process: what it may import, closed streams, failures and Ctrl-C meanwhile, leftovers."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.python.fhe.processes import ends, output_of, start

pytestmark = pytest.mark.fhe


@pytest.mark.parametrize("entry", ["", ".", "absolute"])
def test_the_server_process_runs_no_code_from_the_working_directory(entry: str, tmp_path: Path) -> None:
    for name in ("random", "bz2", "fcntl", "json", "numpy", "fhelearn", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(
            "import os\nopen(os.environ['TOUCHED'], 'a').close()\nraise SystemExit(9)\n"
        )
    touched = tmp_path / "touched"
    out = output_of(
        f"""
        os.chdir({str(tmp_path)!r})
        sys.path.insert(0, {str(tmp_path) if entry == "absolute" else entry!r})
        still_works()
        """,
        TOUCHED=str(touched),
    )
    assert out == "still works\n"
    assert not touched.exists()


def test_odd_import_paths_and_a_deleted_working_directory_do_no_harm(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    out = output_of(
        f"""
        import pathlib
        sys.path[:0] = [pathlib.Path("/nowhere"), ""]
        os.rmdir({str(gone)!r})
        still_works()
        """,
        cwd=str(gone),
    )
    assert out == "still works\n"


@pytest.mark.parametrize("executable", ["None", "''", "'/no/such/python'"])
def test_a_missing_interpreter_is_named_with_its_remedy(executable: str) -> None:
    out = output_of(
        f"""
        genuine, sys.executable = sys.executable, {executable}
        try:
            still_works()
        except BackendUnavailableError as error:
            print("sys.executable" in str(error))
        sys.executable = genuine
        still_works()
        """
    )
    assert out == "True\nstill works\n"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_closed_standard_streams_do_no_harm(closed: tuple[int, ...], tmp_path: Path) -> None:
    result = tmp_path / "result"
    script = f"""
    for descriptor in {closed}:
        os.close(descriptor)
    sys.stdin = sys.stdout = sys.stderr = None
    circuit = compile_program(linear(), CircuitOptions(batch_size=1))
    open({str(result)!r}, "w").write(str(circuit.execute([np.array([[1, 2, 3]])], progress=True)[0].tolist()))
    """
    process = start(script)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert result.read_text() == "[[2, 4, 6]]"


def test_ctrl_c_at_any_moment_of_the_start_leaves_nothing_behind() -> None:
    out = output_of(
        """
        server_process.server()
        server_process.shut_down()
        files, folders = len(os.listdir("/proc/self/fd")), set(os.listdir("/tmp"))
        for i in range(60):
            timer = threading.Timer(0.0003 * i, lambda: os.kill(os.getpid(), signal.SIGINT))
            try:
                timer.start()
                server_process.server()
                time.sleep(0.05)
            except KeyboardInterrupt:
                pass
            timer.join()
            server_process.shut_down()
        time.sleep(0.5)
        mine = [name for name in set(os.listdir("/tmp")) - folders if name.startswith(f"fhelearn-{os.getpid()}-")]
        print(len(os.listdir("/proc/self/fd")) - files, children(), mine)
        """
    )
    assert out == "0 [] []\n"


def test_an_error_at_any_step_of_the_start_leaves_nothing_behind() -> None:
    out = output_of(
        """
        import resource
        server_process.server()
        server_process.shut_down()
        files = len(os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        failed = 0
        for spare in range(14):
            resource.setrlimit(resource.RLIMIT_NOFILE, (files - 1 + spare, hard))
            try:
                server_process.ServerProcess().close()
            except (OSError, BackendUnavailableError):
                failed += 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        folders = [name for name in os.listdir("/tmp") if name.startswith(f"fhelearn-{os.getpid()}-")]
        print(failed > 8, len(os.listdir("/proc/self/fd")) - files, children(), folders)
        """
    )
    assert out == "True 0 [] []\n"


@pytest.mark.parametrize("how", ["raise SystemExit('no luck')", "os.kill(os.getpid(), 11)"])
def test_a_process_that_does_not_start_is_not_blamed_on_the_program(how: str) -> None:
    out = output_of(
        f"""
        from fhelearn.backends.concrete import launch
        launch._BOOTSTRAP = "import os; " + {how!r} + "  # {{path}} {{file}} {{locations}}"
        try:
            still_works()
        except BackendUnavailableError as error:
            print(str(error).startswith("the server process did not start: "))
        """
    )
    assert out == "True\n"


def test_a_death_of_the_compiler_is_blamed_on_the_program() -> None:
    out = output_of(
        """
        still_works()
        os.kill(server_process.server().pid, signal.SIGSTOP)
        threading.Timer(0.3, lambda: os.kill(server_process._current.pid, signal.SIGKILL)).start()
        try:
            compile_program(linear(5))
        except LoweringError as error:
            print("SIGKILL" in str(error))
        """
    )
    assert out == "still works\nTrue\n"


def test_what_a_killed_process_left_is_deleted_by_the_next(tmp_path: Path) -> None:
    left = start(
        "process = server_process.server()\nos.kill(process.pid, 9)\nos.kill(os.getpid(), 9)", TMPDIR=str(tmp_path)
    )
    left.communicate(timeout=60)
    [stale] = tmp_path.iterdir()
    assert stale.name.startswith(f"fhelearn-{left.pid}-")
    foreign = tmp_path / "fhelearn-others"
    foreign.mkdir()
    locked = tmp_path / f"fhelearn-{left.pid}-locked"
    locked.mkdir()
    holder = subprocess.Popen(["flock", str(locked), "sleep", "60"])
    out = output_of(f"still_works()\nprint(sorted(os.listdir({str(tmp_path)!r})))", TMPDIR=str(tmp_path))
    holder.kill()
    assert stale.name not in out
    assert foreign.name in out
    assert locked.name in out
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([foreign.name, locked.name])


def test_the_server_process_writes_no_core_file() -> None:
    out = output_of(
        """
        still_works()
        limits = open(f"/proc/{server_process.server().pid}/limits").read()
        print([line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")])
        """
    )
    assert out == "still works\n[['0', '0']]\n"


def test_the_server_process_ends_with_its_parent_while_a_forked_child_lives() -> None:
    process = start(
        """
        still_works()
        print(server_process.server().pid, flush=True)
        if not os.fork():
            os.close(1), os.close(2)
            time.sleep(30)
            os._exit(0)
        os.kill(os.getpid(), 9)
        """
    )
    out, _ = process.communicate(timeout=60)
    assert ends(int(out.splitlines()[1]))


def test_a_fork_while_other_threads_hold_locks_hangs_nothing() -> None:
    out = output_of(
        """
        still_works()
        codes = []
        for i in range(12):
            server_process.shut_down()
            thread = threading.Thread(target=server_process.server)
            thread.start()
            time.sleep(0.0007 * i)
            child = os.fork()
            if not child:
                signal.alarm(20)
                still_works()
                server_process.shut_down()
                os._exit(0)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            thread.join()
        print(codes == [0] * 12)
        """
    )
    assert out == "still works\n" * 13 + "True\n"


def test_a_fork_during_key_generation_hangs_nothing() -> None:
    out = output_of(
        """
        circuit = compile_program(lookups(5, 1), CircuitOptions(batch_size=1))
        threading.Thread(target=circuit.keygen, daemon=True).start()
        time.sleep(0.1)
        child = os.fork()
        if not child:
            signal.alarm(60)
            print(circuit.keys, flush=True)
            with circuit._lock:
                still_works()
            server_process.shut_down()
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        server_process.shut_down()
        os._exit(0)
        """
    )
    assert out == "None\nstill works\n0\n"


def test_nothing_is_left_in_the_working_directory(tmp_path: Path) -> None:
    output_of("still_works()", cwd=str(tmp_path))
    assert os.listdir(tmp_path) == []

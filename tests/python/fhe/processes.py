"""Scripts in a Python of their own, and what becomes of their processes."""

import os
import signal
import subprocess
import sys
import textwrap
import time

PRELUDE = """
import os, signal, subprocess, sys, threading, time
import numpy as np
from fhelearn.backends.concrete import *
from fhelearn.backends.concrete import server_process
from fhelearn.exceptions import BackendUnavailableError, LoweringError
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

def children():
    \"\"\"Processes of ours that have not ended.\"\"\"
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, parent = open(f"/proc/{name}/stat").read().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.append(int(name))
    return found
"""


def start(script: str, cwd: str | None = None, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **environment},
    )


def output_of(script: str, cwd: str | None = None, **environment: str) -> str:
    process = start(script, cwd, **environment)
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
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


def ends(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as status:
                if status.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False

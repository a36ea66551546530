"""One estimator shared by threads, and processes without a standard error stream; the circuit is a stand-in."""

import pickle
import sys
import threading
import time

import numpy as np
import pytest

from fhelearn.linear_model import Ridge
from tests.python.estimators.cases import load

X, Y = load("diabetes")


class SlowCircuit:
    """Takes its time, so that threads overlap, and counts."""

    def __init__(self, program, options):
        time.sleep(0.02)
        self.program, self.keys, self.keygens, self.shown = program, None, 0, []

    def keygen(self, *, progress):
        time.sleep(0.02)
        self.keygens += 1
        self.shown.append(progress)
        self.keys = object()

    def execute(self, inputs, *, n_jobs, progress):
        self.shown.append(progress)
        return [inputs[0] @ self.program.nodes[-1].array("weights")]


@pytest.fixture
def model(monkeypatch):
    """Compiled, unpickled: its circuit is made when first used."""
    monkeypatch.setattr("fhelearn.backends.concrete.is_available", lambda: True)
    monkeypatch.setattr("fhelearn.backends.concrete.compile_program", SlowCircuit)
    return pickle.loads(pickle.dumps(Ridge().fit(X, Y).compile(X)))


def in_threads(call, count=8):
    results, barrier = [], threading.Barrier(count)

    def run():
        barrier.wait()
        results.append(call())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == count
    return results


def test_all_threads_get_the_same_circuit(model):
    assert len({id(circuit) for circuit in in_threads(lambda: model.fhe_circuit_)}) == 1


def test_threads_that_execute_make_keys_once(model):
    answers = in_threads(lambda: model.predict(X[:3], fhe="execute"))
    assert all(np.array_equal(answer, model.predict(X[:3], fhe="simulate")) for answer in answers)
    assert model.fhe_circuit_.keygens == 1


@pytest.mark.parametrize("progress", [None, True, False])
@pytest.mark.parametrize("closed", [False, True])
def test_without_standard_error_no_progress_is_shown(model, monkeypatch, tmp_path, progress, closed):
    stream = None
    if closed:
        stream = (tmp_path / "stream").open("w")
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    answer = model.predict(X[:3], fhe="execute", progress=progress)
    assert model.fhe_circuit_.shown == [False, False]
    assert (answer == model.predict(X[:3], fhe="simulate")).all()

"""Options of a circuit, availability of the library, grouping of rows."""

import math
import subprocess
import sys
import warnings
from importlib import metadata

import numpy as np
import pytest

from fhelearn.backends.concrete import CircuitOptions, plan, runtime
from fhelearn.backends.concrete.options import DEFAULT_P_ERROR, SMALLEST_P_ERROR
from fhelearn.exceptions import BackendUnavailableError
from fhelearn.ir import Program, ProgramBuilder


def test_the_default_error_probability_is_two_to_the_minus_forty_per_lookup() -> None:
    assert CircuitOptions().lookup_p_error(1000) == DEFAULT_P_ERROR == 2.0**-40


def test_a_global_error_probability_is_shared_among_the_lookups_of_a_row() -> None:
    share = CircuitOptions(global_p_error=0.01).lookup_p_error(100)
    assert 1 - (1 - share) ** 100 == pytest.approx(0.01)
    assert CircuitOptions(global_p_error=0.01).lookup_p_error(0) == pytest.approx(0.01)
    assert CircuitOptions(global_p_error=2.0**-128).lookup_p_error(100) == SMALLEST_P_ERROR


def test_both_error_probabilities_together_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        CircuitOptions(p_error=0.1, global_p_error=0.1)


@pytest.mark.parametrize("name", ["p_error", "global_p_error"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 2.0, 1e-60, math.nan, math.inf])
def test_error_probabilities_outside_their_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        CircuitOptions(**{name: value})


@pytest.mark.parametrize("value", ["0.1", True, [0.1]])
def test_error_probabilities_of_another_type_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="p_error must be a float"):
        CircuitOptions(p_error=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"security_level": 100}, ValueError),
        ({"batch_size": 0}, ValueError),
        ({"batch_size": 10**6}, ValueError),
        ({"batch_size": 2.0}, TypeError),
        ({"batch_size": True}, TypeError),
        ({"security_level": 128.0}, TypeError),
        ({"security_level": np.int64(128)}, TypeError),
        ({"security_level": None}, TypeError),
        ({"strategy": 5}, TypeError),
        ({"strategy": None}, TypeError),
        ({"strategy": "best"}, ValueError),
    ],
)
def test_other_options_outside_their_range_are_refused(wrong: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        CircuitOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["p_error", "global_p_error"])
def test_careless_error_probabilities_are_warned_about(name: str) -> None:
    with pytest.warns(UserWarning, match=f"{name}=0.99.*0.01 or less") as caught:
        CircuitOptions(**{name: 0.99})  # type: ignore[arg-type]
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CircuitOptions(**{name: 0.01})  # type: ignore[arg-type]


def test_options_survive_a_dictionary() -> None:
    options = CircuitOptions(p_error=1e-9, security_level=132, batch_size=3, strategy="multi")
    assert CircuitOptions(**options.as_dict()) == options


def program(features: int, lookups: int) -> Program:
    b = ProgramBuilder()
    x = b.emit("input", shape=(features,), lo=0, hi=1)
    if not lookups:
        return b.build(b.emit("matmul", x, weights=np.ones((features, 1), dtype=np.int64)))
    y = b.emit("matmul", x, weights=np.ones((features, lookups), dtype=np.int64))
    return b.build(b.emit("table_lookup", y, lo=0, table=np.arange(features + 1)))


@pytest.mark.parametrize(
    ("features", "lookups", "expected"),
    [(30, 0, 16), (784, 0, 16), (10**5, 0, 1), (4, 1, 64), (4, 8, 32), (4, 100, 2), (4, 200, 1)],
)
def test_batch_sizes_are_bounded_by_memory_and_by_lookups(features: int, lookups: int, expected: int) -> None:
    assert plan.choose_batch_size(program(features, lookups), lookups) == expected


def test_rows_are_split_into_batches_and_the_cheaper_rest() -> None:
    whole, single = plan.Piece(4, True), plan.Piece(1, False)
    assert plan.split_rows(0, 4, 1, 0) == []
    assert plan.split_rows(3, 1, 1, 0) == [single] * 3
    assert plan.split_rows(9, 4, 1, 0.1) == [whole, whole, single]
    assert plan.split_rows(7, 4, 1, 10) == [whole, plan.Piece(3, True)]
    assert plan.split_rows(7, 4, 1, 0) == [whole, single, single, single]


def test_rows_are_never_lost() -> None:
    for n in range(40):
        for size in (1, 2, 8, 64):
            for call in (0, 1, 50):
                pieces = plan.split_rows(n, size, 1.0, call)
                assert sum(p.rows for p in pieces) == n
                assert all(p.rows <= (size if p.batched else 1) for p in pieces)


def version_is(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    def version(_: str) -> str:
        if text is None:
            raise metadata.PackageNotFoundError
        return text

    monkeypatch.setattr(runtime.metadata, "version", version)


def test_a_missing_library_says_what_works_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    version_is(monkeypatch, None)
    assert not runtime.is_available()
    with pytest.raises(BackendUnavailableError, match="everything but fhe='execute' works"):
        runtime.require()


@pytest.mark.parametrize(("system", "machine"), [("Windows", "AMD64"), ("Linux", "aarch64"), ("Darwin", "x86_64")])
def test_a_platform_without_wheels_is_named(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    version_is(monkeypatch, None)
    monkeypatch.setattr(runtime.platform, "system", lambda: system)
    monkeypatch.setattr(runtime.platform, "machine", lambda: machine)
    reason = runtime.unavailable_reason()
    assert reason is not None
    assert f"no build for Python 3.{sys.version_info.minor} on {system} {machine}" in reason
    assert "Linux x86-64" in reason


@pytest.mark.parametrize("text", ["2.9.0", "1.4.0", "3.0.0", "unknown"])
def test_versions_outside_the_tested_range_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    version_is(monkeypatch, text)
    assert "2.10 to 2.11" in (runtime.unavailable_reason() or "")


@pytest.mark.parametrize("text", ["2.10.0", "2.11.0", "2.11.3+local", "2.12.0"])
def test_versions_in_the_tested_range_or_newer_minors_are_tried(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    version_is(monkeypatch, text)
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: object())
    assert runtime.unavailable_reason() is None


def test_importing_the_back_end_loads_nothing_heavy() -> None:
    heavy = ("concrete", "torch", "mlir", "sklearn")
    code = f"import sys, fhelearn.backends.concrete; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

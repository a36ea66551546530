"""The demonstration runs to its end, and fails when it must."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.demo import __main__ as demo
from benchmarks.demo.experiment import Experiment

pytestmark = pytest.mark.fhe


@pytest.fixture(scope="module")
def experiments() -> list[Experiment]:
    return demo.experiments()


def test_demo_prints_its_tables_and_writes_a_plot(
    experiments: list[Experiment],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "experiments", lambda: experiments)
    path = tmp_path / "made" / "plot.png"
    assert demo.main(["--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for words in ("simulated (C++ engine)", "143 of 143 labels equal", "evaluation keys", "table lookups"):
        assert words in printed
    assert max(map(len, printed.splitlines())) <= 120


def test_demo_fails_when_a_decrypted_answer_is_not_the_simulated_one(
    experiments: list[Experiment],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    classifier, regressor = experiments
    wrong = replace(classifier, decrypted=1 - classifier.decrypted)
    monkeypatch.setattr(demo, "experiments", lambda: [wrong, regressor])
    assert demo.main(["--plot", str(tmp_path / "plot.png")]) == 1
    assert "LogisticRegression" in capsys.readouterr().err

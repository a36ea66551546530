"""What tree models cost, counted exactly, what the client is given, and what the report says about both."""

import dataclasses
import warnings
from functools import cache

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

from fhelearn import HiddenGridWarning
from fhelearn.ensemble import IsolationForest, RandomForestClassifier
from fhelearn.estimators.forest_report import CutReport, EncodingPrice, ForestReport
from fhelearn.ir import cost
from fhelearn.lightgbm import LGBMClassifier
from fhelearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from fhelearn.xgboost import XGBClassifier
from tests.python.estimators.forest_cases import (
    CLASSIFIERS,
    EVERY_CLASS,
    OUTLIER_DETECTORS,
    REGRESSORS,
    compiled,
    data,
    lazy_circuits,  # noqa: F401 (an autouse fixture)
    regression,
    usual,
)

X, HELD_OUT, Y, HELD_OUT_Y = train_test_split(*load_breast_cancer(return_X_y=True), random_state=0)

MODELS = {
    "boosted": lambda: XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1),
    "more boosted": lambda: XGBClassifier(n_estimators=50, max_depth=4, n_jobs=1),
    "tree": lambda: DecisionTreeClassifier(max_depth=5, random_state=0),
    "forest": lambda: RandomForestClassifier(20, max_depth=4, random_state=0),
}


@pytest.fixture
def without_concrete(monkeypatch):
    """Reports without figures of the circuit, which would have to be compiled for them."""
    monkeypatch.setattr("fhelearn.backends.concrete.is_available", lambda: False)


@cache
def model_of(name):
    return MODELS[name]().fit(X, Y).compile(X)


@cache
def report_of(name):
    """The report with its circuit, which this compiles, but without keys."""
    return model_of(name).report(HELD_OUT, HELD_OUT_Y)


@pytest.mark.parametrize(
    ("name", "most"), [("boosted", 40), ("more boosted", 158), ("tree", 10), ("forest", 100)]
)  # fmt: skip
def test_lookups_stay_below_what_was_promised(name, most):
    program = model_of(name).program_
    assert cost(program).total_lookups <= most
    assert all(bits <= 4 for bits in cost(program).lookups)


def test_twenty_boosted_trees_take_as_many_lookups_as_they_did():
    """Exact, so that every change of the cut is seen; a cheaper one may lower the number, nothing may raise it."""
    assert cost(model_of("boosted").program_).total_lookups == 32


@pytest.mark.parametrize(("name", "most"), [("boosted", 5.7e9), ("more boosted", 1.6e10)])
def test_complexity_at_the_default_error_probability_stays_below_what_was_promised(name, most):
    report = report_of(name)
    assert report.complexity <= most  # the peer: 6.5e10 and 2.8e11
    assert report.p_error <= 2.0**-40


@pytest.mark.parametrize("name", ["boosted", "tree"])
def test_the_report_counts_what_the_program_holds(name):
    model, report = model_of(name), report_of(name)
    program, quantized = model.program_, model._fhe_compiled.quantized
    assert report.lookups == cost(program).total_lookups == model.fhe_circuit_.cost.num_lookups
    assert report.estimator == type(model).__name__
    assert (report.n_features, report.n_outputs) == (30, 1)
    assert report.n_trees == {"boosted": 20, "tree": 1}[name]
    assert report.n_scores == {"boosted": 1, "tree": 2}[name]
    assert report.ciphertexts == model.quantize_input(X[:1]).shape[1] >= 30 * 63
    output = program.nodes[program.outputs[0]].value
    assert report.output_bits == output.bit_width
    assert report.leaf_bits == quantized.leaves.n_bits <= 8
    thresholds = {
        (int(f), float(t))
        for tree in quantized.forest.trees
        for f, t in zip(tree.feature, tree.threshold, strict=True)
        if f >= 0
    }
    assert report.n_conditions >= len(thresholds)
    assert report.score_error == (quantized.error_bound / quantized.forest.score_range).max()
    assert report.evaluation_key_bytes > 0
    assert report.secret_key_bytes > 0
    assert report.input_bytes_per_row == 24 * report.ciphertexts
    assert report.output_bytes_per_row > 0
    assert 0 < report.seconds_per_row < 60


def test_the_default_moves_no_row_and_keeps_the_labels():
    for name in MODELS:
        report = report_of(name)
        assert report.rows_moved == 0
        assert report.rows_undecided <= 2
        assert (1 - report.label_agreement) * len(HELD_OUT) <= report.rows_undecided
        assert report.metric == "accuracy"
        assert report.metric_float == model_of(name).score(HELD_OUT, HELD_OUT_Y)
        assert report.metric_quantized == accuracy_score(HELD_OUT_Y, model_of(name).predict(HELD_OUT, fhe="simulate"))


def test_the_cut_is_visible():
    cut = report_of("boosted").cut
    assert isinstance(cut, CutReport)
    assert sum(cut.sizes.values()) == cut.lookups == cost(model_of("boosted").program_).total_lookups
    assert max(cut.sizes) <= 2**cut.bit_width == 16
    assert cut.pieces >= cut.lookups
    assert cut.compared[cut.bit_width] == min(cut.compared.values())
    assert len(cut.compared) >= 3


@pytest.mark.parametrize("encoding", ["bits", "digits"])
def test_both_encodings_show_the_price_that_they_have_when_chosen(encoding, without_concrete):
    x = X
    reports = {
        chosen: DecisionTreeClassifier(max_depth=4, random_state=0)
        .fit(x, Y)
        .compile(x, grid="uniform", encoding=chosen)
        .report()
        for chosen in ("bits", "digits")
    }
    price = getattr(reports["bits"], f"{encoding}_encoding")
    assert isinstance(price, EncodingPrice)
    assert (price.ciphertexts, price.lookups) == (reports[encoding].ciphertexts, reports[encoding].lookups)
    assert reports[encoding].encoding == encoding
    assert reports[encoding].grid == "uniform"


def test_thresholds_alone_are_fewest_ciphertexts(without_concrete):
    reports = {g: MODELS["tree"]().fit(X, Y).compile(X, grid=g).report() for g in ("hidden", "thresholds", "uniform")}
    assert reports["thresholds"].ciphertexts == reports["thresholds"].n_conditions < 30
    assert reports["hidden"].ciphertexts >= 30 * 63
    assert len({r.lookups for g, r in reports.items() if g != "uniform"}) == 1


@pytest.mark.parametrize("inputs", [2, 4, 8])
def test_rows_that_a_uniform_grid_moves_are_counted(inputs, without_concrete):
    x, y = regression("diabetes")
    model = DecisionTreeRegressor(max_depth=4, random_state=0, n_bits={"leaves": 8, "inputs": inputs}).fit(x, y)
    report = model.compile(x, grid="uniform").report(x, y)
    moved = model._fhe_compiled.quantized.forest.library_leaves(x) != model.apply(x)[:, None]
    assert report.rows_moved == moved.sum()
    assert (report.rows_moved > 0) or inputs > 2


@EVERY_CLASS
def test_every_estimator_reports(name, without_concrete):
    x, y = data(name, usual(name))
    report = compiled(name, usual(name)).report(x, y)
    assert isinstance(report, ForestReport)
    assert report.rows_moved == 0
    assert (report.label_agreement is None) == (report.rows_undecided is None) == (name in REGRESSORS)
    assert (report.max_error is None) == (name not in REGRESSORS)
    kinds = ((CLASSIFIERS, "accuracy"), (REGRESSORS, "score"), (OUTLIER_DETECTORS, None))
    assert report.metric == next(metric for names, metric in kinds if name in names)
    assert report.complexity is None
    if name in REGRESSORS:
        model = compiled(name, usual(name))
        error = np.abs(model.predict(x, fhe="simulate") - model.predict(x)).max() / np.ptp(y)
        assert report.max_error == pytest.approx(error)
    if name not in REGRESSORS + OUTLIER_DETECTORS:
        assert (1 - report.label_agreement) * len(x) <= report.rows_undecided + 1e-9
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.lookups = 1


def test_without_data_only_the_cost_is_reported(without_concrete):
    report = model_of("tree").report()
    fields = ("rows_moved", "rows_undecided", "label_agreement", "max_error", "metric", "metric_float", "complexity")
    assert all(getattr(report, name) is None for name in fields)
    assert "agreement" not in str(report)
    assert "None" not in str(report)


def test_a_report_is_read_line_by_line(capsys, without_concrete):
    report = model_of("tree").report(HELD_OUT, HELD_OUT_Y)
    print(report)
    lines = capsys.readouterr().out.splitlines()
    words = dict(line.split("  ", 1) for line in lines)
    assert words["estimator"].strip() == "DecisionTreeClassifier"
    assert words["lookups"].strip() == str(report.lookups)
    assert (
        f"{report.cut.pieces} pieces in {report.lookups} lookups of {report.cut.bit_width} bits (values: "
        in words["cut"]
    )
    assert "; compared: " in words["cut"]
    assert words["rows moved"].strip() == words["rows undecided"].strip() == "0"
    assert (
        words["bits encoding"].strip().startswith(f"{report.ciphertexts} ciphertexts, {report.lookups} lookups, about ")
    )
    assert words["digits encoding"].strip().startswith("900 ciphertexts, ")


def given_away(model):
    """Conditions of the model that are sent as no decoy is: on a feature without one, twice, or of another NaN side."""
    quantized = model._fhe_compiled.quantized
    encoder, own = quantized.encoder, quantized.native.encoder
    mine = set(zip(own.feature.tolist(), own.threshold.tolist(), strict=True))
    given = list(zip(encoder.feature.tolist(), encoder.threshold.tolist(), strict=True))
    sides = dict(zip(given, encoder.nan_true.tolist(), strict=True))
    decoys = {(feature, sides[feature, threshold]) for feature, threshold in given if (feature, threshold) not in mine}
    return [c for c in sorted(mine) if (c[0], sides[c]) not in decoys or given.count(c) > 1]


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeClassifier(max_depth=5, random_state=0),
        RandomForestClassifier(20, max_depth=4, random_state=0),
        XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1),
        LGBMClassifier(n_estimators=20, num_leaves=7, n_jobs=1, verbose=-1),
        IsolationForest(n_estimators=20, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("holes", [False, True], ids=["complete", "missing"])
def test_hidden_thresholds_are_sent_as_decoys_are(model, holes):
    """On features that have decoys, once, and with no side of missing values."""
    x = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X) if holes else X
    assert given_away(type(model)(**model.get_params(deep=False)).fit(x, Y).compile(x)) == []


def test_a_feature_that_the_model_does_not_ask_is_sent_all_the_same():
    model = model_of("tree")
    quantized = model._fhe_compiled.quantized
    asked = set(quantized.native.encoder.feature.tolist())
    assert len(asked) < 30
    counts = np.bincount(quantized.encoder.feature, minlength=30)
    assert set(counts.tolist()) == {64}  # 63 thresholds, and whether the feature is present


def test_a_grid_that_cannot_hide_says_so():
    model = XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1).fit(X, Y)
    with pytest.warns(
        HiddenGridWarning, match=r"more thresholds than decoys .* for feature \d+.* compile on more rows"
    ):
        model.compile(X[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("error", HiddenGridWarning)
        model.compile(X)
        model.compile(X[:1], grid="thresholds")


def test_another_compilation_draws_other_decoys():
    model = MODELS["tree"]().fit(X, Y)
    first, again = (model.compile(X).quantize_input(X) for _ in range(2))
    assert not np.array_equal(first, again)

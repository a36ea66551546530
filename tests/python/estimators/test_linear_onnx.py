"""The ONNX view of linear models is the model: importing it gives the very program of the direct linear front end."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.exceptions import NotFittedError

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.linear import BitWidths
from fhelearn.frontends.onnx import NBits, Settings, import_linear_or_network, linear_map
from fhelearn.linear_model import BayesianRidge, LogisticRegression, Ridge
from fhelearn.onnx import get_equivalent_numpy_forward
from fhelearn.onnx.cleanup import clean
from tests.python.estimators.cases import data_for, fit, load, make

REGRESSORS = ("LinearRegression", "Ridge", "RidgeCV", "Lasso", "ElasticNet", "LinearSVR", "TweedieRegressor",
              "PoissonRegressor", "GammaRegressor")  # fmt: skip


def rounded(model):
    """The model with weights that Hummingbird's float32 holds: everything else of the two ways is equal then."""
    model.coef_ = model.coef_.astype(np.float32).astype(np.float64)
    model.intercept_ = np.asarray(model.intercept_).astype(np.float32).astype(np.float64)
    return model


def imported(model, x, bits=None):
    settings = Settings(NBits.of(8), range_margin=0.1)  # the margin of `compile`
    return import_linear_or_network(clean(model.onnx_model_).body, [x], settings, bits=bits)


def assert_same(model, x, bits=None):
    network, direct = imported(model, x, bits), model.compile(x)
    assert network.program == direct.program_
    assert (network.quantize([x])[0] == direct.quantize_input(x)).all()
    q = direct._fhe_compiled.simulate(direct.quantize_input(x))
    assert (network.dequantize([q])[0] == direct.dequantize_output(q)).all()


@pytest.mark.parametrize("name", REGRESSORS)
def test_importing_the_onnx_view_of_a_regressor_gives_its_own_program(name):
    x, y = data_for(name)
    assert_same(rounded(fit(make(name), x, y)), x)


@pytest.mark.parametrize("name", ["LogisticRegression", "LogisticRegressionCV", "LinearSVC"])
def test_importing_the_onnx_view_of_a_binary_classifier_gives_its_own_program(name):
    x, y = load("iris")
    assert_same(rounded(fit(make(name), x, y == 0)), x)


@pytest.mark.parametrize("name", ["LogisticRegression", "LogisticRegressionCV"])
def test_importing_the_onnx_view_of_a_classifier_of_three_classes_gives_its_own_program(name):
    x, y = load("iris")
    assert_same(rounded(fit(make(name), x, np.array(["a", "b", "c"])[y])), x)


@pytest.mark.parametrize("n_bits", [3, 8, 16])
def test_given_widths_give_equal_programs_too(n_bits):
    x, y = load("diabetes")
    assert_same(rounded(Ridge(n_bits=n_bits).fit(x, y)), x, BitWidths(n_bits, n_bits))


def test_the_onnx_view_answers_as_the_model():
    x, y = load("iris")
    model = fit(LogisticRegression(), x, y)
    label, scores = get_equivalent_numpy_forward(model.onnx_model_)(x)
    assert (label == model.predict(x)).all()
    np.testing.assert_allclose(scores, model.predict_proba(x), atol=1e-5)


def test_classes_that_hummingbird_does_not_know_are_refused_by_name():
    x, y = load("diabetes")
    with pytest.raises(LoweringError, match=r"BayesianRidge: hummingbird-ml .* cannot convert this model to ONNX"):
        _ = BayesianRidge().fit(x, y).onnx_model_


def test_showing_an_estimator_in_a_notebook_makes_no_onnx_view(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the ONNX view was made")

    monkeypatch.setattr("fhelearn.onnx.export_sklearn", refuse)
    assert "Ridge" in Ridge().fit(*load("diabetes"))._repr_html_()


def test_before_fit_there_is_no_onnx_view():
    with pytest.raises(NotFittedError):
        _ = Ridge().onnx_model_


# -- reading a graph as a linear map -----------------------------------------------------------------------------------


def body(nodes, constants, n_inputs, n_outputs):
    """A graph from "x" to "y" of float64 rows."""
    graph = helper.make_graph(
        [
            helper.make_node(*node[:3], name=f"n{i}", **(node[3] if len(node) > 3 else {}))
            for i, node in enumerate(nodes)
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1, n_inputs])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1, n_outputs])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


W, C = [[1.0, -2.0], [0.0, 3.0], [4.0, 5.0]], [[7.0, -8.0]]

AFFINE = {
    "gemm": ([("Gemm", ["x", "w", "c"], ["y"])], 2),
    "gemm with factors": ([("Gemm", ["x", "t", "c"], ["y"], {"alpha": 0.5, "beta": -2.0, "transB": 1})], 2),
    "gemm without bias": ([("Gemm", ["x", "w"], ["y"])], 2),
    "matmul and add": ([("MatMul", ["x", "w"], ["a"]), ("Add", ["c", "a"], ["y"])], 2),
    "scaler": ([("Sub", ["x", "m"], ["a"]), ("Div", ["a", "s"], ["b"]), ("MatMul", ["b", "w"], ["y"])], 2),
    "mirror": ([("Sub", ["m", "x"], ["a"]), ("Neg", ["a"], ["b"]), ("Mul", ["s", "b"], ["y"])], 3),
    "columns": ([("Gather", ["x", "order"], ["a"], {"axis": 1}), ("Concat", ["a", "x"], ["y"], {"axis": -1})], 5),
    "part": ([("Slice", ["x", "start", "stop", "axis"], ["y"])], 2),
    "part in steps": ([("Slice", ["x", "begin", "far", "axis", "step"], ["a"]), ("Neg", ["a"], ["y"])], 2),
    "one number": ([("Mul", ["x", "two"], ["a"]), ("Add", ["a", "two"], ["b"]), ("Identity", ["b"], ["y"])], 3),
}  # fmt: skip
CONSTANTS = {"w": W, "t": np.transpose(W), "c": C, "m": [1.0, 2.0, -3.0], "s": [2.0, 4.0, -0.5], "two": 2.0,
             "order": np.array([2, 0]), "start": np.array([-2]), "stop": np.array([3]), "axis": np.array([1]),
             "begin": np.array([0]), "far": np.array([2**62]), "step": np.array([2])}  # fmt: skip


@pytest.mark.parametrize("name", AFFINE)
def test_affine_graphs_become_the_map_that_their_forward_computes(name, rng):
    nodes, n_outputs = AFFINE[name]
    model = body(nodes, CONSTANTS, 3, n_outputs)
    found = linear_map(model)
    forward = get_equivalent_numpy_forward(model)
    # Small integers, and steps of a power of two: every sum is exact in float64.
    for row in rng.integers(-100, 100, size=(20, 1, 3)).astype(np.float64):
        assert (row @ found.weights + found.intercept == forward(row)).all()


OTHERS = {
    "a function": ([("Relu", ["x"], ["y"])], 3),
    "a product of the input with itself": ([("Mul", ["x", "x"], ["y"])], 3),
    "a quotient by the input": ([("Div", ["m", "x"], ["y"])], 3),
    "a constant that makes it larger": ([("Gemm", ["x", "k"], ["a"]), ("Add", ["a", "m"], ["y"])], 3),
    "an operator it does not know": ([("Softmax", ["x"], ["y"])], 3),
    "rows in another order": ([("Gather", ["x", "first"], ["y"], {"axis": 0})], 3),
    "a constant": ([("Identity", ["m2"], ["y"])], 3),
    "weights from the input": ([("Gemm", ["w3", "x"], ["y"], {"transB": 1})], 1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_graphs_are_no_linear_map(name):
    nodes, n_outputs = OTHERS[name]
    constants = {**CONSTANTS, "k": [[1.0], [2.0], [3.0]], "m2": [[1.0, 2.0, 3.0]], "w3": [[1.0, 2.0, 3.0]],
                 "first": np.array([0])}  # fmt: skip
    assert linear_map(body(nodes, constants, 3, n_outputs)) is None

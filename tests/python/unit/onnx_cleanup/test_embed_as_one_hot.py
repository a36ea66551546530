"""Embeddings are products of one-hot rows, made by the client, with the table."""

import numpy as np
import pytest

from fhelearn.onnx.cleanup.embed_as_one_hot import embed_as_one_hot
from tests.python.unit.onnx_cleanup.laws import OPSETS, applied, assert_equal, build, node, op_types, run, value


def embedding(rng, ids_shape=(1, 3), table_shape=(6, 4), opset=17, dtype=np.int64, before=(), **attributes):
    table = rng.normal(size=table_shape).astype(np.float32)
    ids = before[-1].output[0] if before else "ids"
    nodes = [*before, node("Gather", ["table", ids], "e", **attributes), node("Relu", "e", "y")]
    return build(nodes, [value("ids", ids_shape, dtype)], ["y"], {"table": table}, opset)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("ids_shape", [(1,), (1, 3), (1, 2, 2), ()])
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_every_index_gives_its_row(opset, ids_shape, dtype, rng):
    model = embedding(rng, ids_shape, opset=opset, dtype=dtype)
    product, lines = applied(embed_as_one_hot, model)
    assert [kind for kind in op_types(product) if kind != "Reshape"] == ["Gather", "OneHot", "MatMul", "Relu"]
    assert ("Reshape" in op_types(product)) == (ids_shape == ())
    assert len(lines) == 1
    for index in range(-6, 6):
        feeds = {"ids": np.full(ids_shape, index, dtype)}
        assert_equal(run(product, feeds), run(model, feeds))


@pytest.mark.parametrize("table_shape", [(6, 2, 3), (6, 1, 1, 2)])
def test_rows_may_have_any_shape(table_shape, rng):
    model = embedding(rng, table_shape=table_shape)
    product, _ = applied(embed_as_one_hot, model)
    feeds = {"ids": rng.integers(-6, 6, size=(1, 3))}
    assert_equal(run(product, feeds), run(model, feeds))


@pytest.mark.parametrize("index", [-7, 6, 1000])
def test_an_index_out_of_range_raises(index, rng):
    product, _ = applied(embed_as_one_hot, embedding(rng))
    with pytest.raises(IndexError):
        run(product, {"ids": np.array([[0, index, 1]])})


def test_indices_may_be_computed_from_clear_inputs(rng):
    model = embedding(rng, before=[node("Cast", "ids", "as_int", to=7)], dtype=np.float32)
    product, _ = applied(embed_as_one_hot, model)
    assert op_types(product) == ["Cast", "Gather", "OneHot", "MatMul", "Relu"]
    feeds = {"ids": np.array([[0, 5, 2]], np.float32)}
    assert_equal(run(product, feeds), run(model, feeds))


def test_an_axis_other_than_rows_and_indices_of_secrets_stay(rng):
    assert op_types(applied(embed_as_one_hot, embedding(rng, axis=1))[0]) == ["Gather", "Relu"]
    consts = {"w": rng.normal(size=(3, 3)).astype(np.float32), "table": rng.normal(size=(6, 4)).astype(np.float32)}
    nodes = [node("MatMul", ["x", "w"], "h"), node("Cast", "h", "ids", to=7), node("Gather", ["table", "ids"], "y")]
    secret = build(nodes, [value("x", [1, 3])], ["y"], consts)
    assert op_types(applied(embed_as_one_hot, secret)[0]) == ["MatMul", "Cast", "Gather"]


def test_a_table_with_infinite_entries_stays(rng):
    model = embedding(rng)
    model.graph.initializer[0].raw_data = np.full((6, 4), -np.inf, np.float32).tobytes()
    assert op_types(applied(embed_as_one_hot, model)[0]) == ["Gather", "Relu"]

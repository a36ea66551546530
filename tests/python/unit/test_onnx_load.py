"""Models are read, checked and normalized, or refused with the reason."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fhelearn.exceptions import FhelearnError, LoweringError, ModelFormatError, UnsupportedOperatorError
from fhelearn.onnx import load_model
from fhelearn.onnx.load import static_shapes

FLOAT = TensorProto.FLOAT


def model_of(nodes, *, inputs=(("x", ("n", 3)),), outputs=(("y", ("n", 3)),), initializers=(), opset=17, **options):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs],
        list(initializers),
    )
    domains = {"": opset, **options.pop("domains", {})}
    imports = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(graph, **{"opset_imports": imports, "ir_version": 8, **options})


def tensor(name, values):
    return onnx.numpy_helper.from_array(np.array(values, dtype=np.float32), name)


def adding(values, **options):
    return model_of([helper.make_node("Add", ["x", "b"], ["y"])], initializers=[tensor("b", values)], **options)


def in_subgraph(node):
    branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("z", FLOAT, ("n", 3))])
    return model_of(
        [
            helper.make_node("Constant", [], ["yes"], value=onnx.numpy_helper.from_array(np.array(True))),
            helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
        ]
    )


def test_bytes_files_and_protos_give_the_same_private_copy(tmp_path):
    model = adding([1, 2, 3])
    before = model.SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(before)
    loaded = [load_model(source) for source in (model, before, path, str(path))]
    assert all(copy.SerializeToString() == before for copy in loaded)
    loaded[0].graph.name = "other"
    assert model.SerializeToString() == before


def test_external_data_is_read_from_the_folder_of_the_file(tmp_path):
    model = adding(np.arange(3))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert np.array_equal(onnx.numpy_helper.to_array(load_model(path).graph.initializer[0]), [0, 1, 2])
    with pytest.raises(ModelFormatError, match="tensors 'b' are stored in files beside the model; pass the path"):
        load_model(path.read_bytes())
    with pytest.raises(ModelFormatError, match="tensors 'b' are stored in files"):
        load_model(onnx.load(path, load_external_data=False))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelFormatError, match=r"external data of .* cannot be read from folder .*weights\.bin"):
        load_model(path)


def test_external_data_never_leaves_the_folder(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    folder = tmp_path / "folder"
    folder.mkdir()
    model = adding(np.arange(3))
    outside = model.graph.initializer[0]
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../secret.bin")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFormatError, match="cannot be read from folder"):
        load_model(folder / "model.onnx")


def test_every_truncation_and_many_alterations_give_an_error_or_a_valid_model():
    data = adding([1, 2, 3]).SerializeToString()
    rng = np.random.default_rng(0)
    broken = [data[:length] for length in range(len(data))]
    for _ in range(300):
        altered = bytearray(data)
        altered[rng.integers(len(data))] = rng.integers(256)
        broken.append(bytes(altered))
    for candidate in broken:
        try:
            onnx.checker.check_model(load_model(candidate))
        except FhelearnError:
            continue


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"", "the model has no graph"),
        (b"not a model", "the bytes cannot be parsed as an ONNX model"),
        (model_of([helper.make_node("Relu", ["x"], ["y"])], outputs=()), "graph 'graph' has no outputs"),
        (model_of([helper.make_node("Relu", ["z"], ["y"])]), "graph 'graph' is not valid ONNX"),
        (model_of([helper.make_node("Nonsense", ["x"], ["y"])]), "is not valid ONNX: .*Nonsense"),
        (adding([1, np.nan, 3]), "tensors 'b' hold NaN; train or export the model again"),
        (model_of([helper.make_node("Constant", [], ["y"], value_floats=[1.0, np.nan])]), "tensors 'y' hold NaN"),
        (model_of([helper.make_node("Constant", [], ["y"], value_float=np.nan)]), "tensors 'y' hold NaN"),
        (model_of([helper.make_node("Constant", [], ["y"], value=tensor("", [np.nan]))]), "tensors 'y' hold NaN"),
        (in_subgraph(helper.make_node("Constant", [], ["z"], value=tensor("c", [np.nan]))), "tensors 'c' hold NaN"),
        (adding([1, 2, 3], opset=99), "the model is of opset 99, but onnx .* knows 1 to .* or older, or update onnx"),
    ],
)
def test_broken_models_are_refused_with_the_reason(model, message):
    with pytest.raises(ModelFormatError, match=message):
        load_model(model)


def test_bfloat16_constants_are_searched_for_nan_too():
    weights = helper.make_tensor("b", TensorProto.BFLOAT16, [1], [np.nan])
    nodes = [helper.make_node("Cast", ["b"], ["c"], to=FLOAT), helper.make_node("Add", ["x", "c"], ["y"])]
    with pytest.raises(ModelFormatError, match="tensors 'b' hold NaN"):
        load_model(model_of(nodes, initializers=[weights]))


def test_tensors_shorter_than_their_shape_are_refused():
    model = adding([1, 2, 3])
    model.graph.initializer[0].raw_data = bytes(8)
    with pytest.raises(ModelFormatError, match=r"tensor (name: |')b"):
        load_model(model)


def test_files_and_types_are_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        load_model("nowhere.onnx")
    with pytest.raises(TypeError, match=r"model must be an onnx\.ModelProto, bytes or a path, got ndarray"):
        load_model(np.zeros(3))


def test_infinite_constants_are_allowed_as_bounds():
    clip = helper.make_node("Clip", ["x", "low", "high"], ["y"])
    assert load_model(model_of([clip], initializers=[tensor("low", 0), tensor("high", np.inf)]))


def test_all_nodes_of_foreign_domains_are_listed():
    nodes = [helper.make_node(op, [x], [y], domain="acme") for op, x, y in (("Blur", "x", "z"), ("Glow", "z", "y"))]
    model = model_of(nodes, domains={"acme": 1})
    with pytest.raises(UnsupportedOperatorError, match=r"acme\.Blur 'z', acme\.Glow 'y'; allowed are '', 'ai\.onnx'"):
        load_model(model)
    assert issubclass(UnsupportedOperatorError, LoweringError)
    assert len(load_model(model, domains={"acme"}).graph.node) == 2


def test_the_default_domain_has_one_name():
    node = helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")
    model = model_of([node])
    model.opset_import[0].domain = "ai.onnx"
    loaded = load_model(model)
    assert (loaded.graph.node[0].domain, loaded.opset_import[0].domain) == ("", "")


def test_initializers_are_no_inputs_whatever_the_age_of_the_model():
    loaded = load_model(adding([1, 2, 3], inputs=(("x", ("n", 3)), ("b", (3,))), ir_version=3))
    assert [value.name for value in loaded.graph.input] == ["x"]
    onnx.checker.check_model(loaded)


def test_functions_are_inlined():
    function = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    model = model_of(
        [helper.make_node("Twice", ["x"], ["y"], domain="local")], domains={"local": 1}, functions=[function]
    )
    loaded = load_model(model)
    assert [node.op_type for node in loaded.graph.node] == ["Add"]
    assert not loaded.functions


def test_old_opsets_are_converted():
    squeeze = helper.make_node("Unsqueeze", ["x"], ["y"], axes=[1])
    loaded = load_model(model_of([squeeze], outputs=(("y", ("n", 1, 3)),), opset=9))
    assert loaded.opset_import[0].version == 13
    assert len(next(node for node in loaded.graph.node if node.op_type == "Unsqueeze").input) == 2
    newest = onnx.defs.onnx_opset_version()
    assert load_model(adding([1, 2, 3], opset=newest)).opset_import[0].version == newest


def test_what_cannot_be_converted_is_refused():
    pad = helper.make_node("Pad", ["x"], ["y"], paddings=[0, 1, 0, 1])
    model = model_of([pad], inputs=(("x", (2, 2)),), outputs=(("y", (2, 4)),), opset=1)
    with pytest.raises(
        ModelFormatError, match=r"of opset 1 and cannot be converted to 13: .*; export it with opset 13"
    ):
        load_model(model)


def test_shapes_become_static():
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], initializers=[tensor("w", np.ones((3, 2)))],
                     outputs=(("y", ("n", 2)),))  # fmt: skip
    for batch_size in (1, 5):
        fixed = static_shapes(load_model(model), batch_size)
        for value, columns in ((fixed.graph.input[0], 3), (fixed.graph.output[0], 2)):
            assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [batch_size, columns]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


def test_shapes_computed_by_the_graph_are_propagated():
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["rows"]),
        helper.make_node("Concat", ["rows", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["z"]),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array([value]), name) for name, value in (("zero", 0), ("rest", -1))
    ]  # fmt: skip
    model = model_of(nodes, inputs=(("x", (None, 2, 3)),), outputs=(("y", ("n", "m")),), initializers=constants)
    inferred = {value.name: value for value in static_shapes(load_model(model), 4).graph.value_info}
    assert [dim.dim_value for dim in inferred["z"].type.tensor_type.shape.dim] == [4, 6]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (("n", "width"), "input 'x': axis 1 is 'width', but only axis 0"),
        (("n", None), "input 'x': axis 1 is 'unknown', but only axis 0"),
        (None, "input 'x' must be a tensor of known rank"),
        ((2, 4), "shapes of the model contradict each other"),
    ],
)
def test_shapes_that_stay_open_are_named(shape, message):
    with pytest.raises(ModelFormatError, match=message):
        static_shapes(adding([1, 2, 3], inputs=(("x", shape),), outputs=(("y", None),)))


def test_the_batch_size_is_positive():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        static_shapes(adding([1, 2, 3]), 0)

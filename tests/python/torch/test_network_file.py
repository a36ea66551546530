"""Files of quantized modules: what is saved is loaded bit for bit, and nothing in a file is trusted."""

import json

import numpy as np
import onnx
import pytest

from fhelearn.backends.concrete import envelope
from fhelearn.exceptions import FhelearnError, ModelFormatError, ProgramFormatError
from fhelearn.torch import QuantizedModule, build_quantized_module
from tests.python.torch.networks import APPROXIMATE, MODULES, assert_same, data, module, quantized, random_codes

_KIND = "network"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The bytes of a file with every part but pre-processing."""
    path = tmp_path_factory.mktemp("saved") / "classifier.fhelearn"
    quantized("classifier").save(path)
    return path.read_bytes()


@pytest.fixture
def load(tmp_path):
    """Load a module from bytes."""

    def load(content):
        path = tmp_path / "module.fhelearn"
        path.write_bytes(content)
        return QuantizedModule.load(path)

    return load


def parts_of(content):
    header, blobs = envelope.unseal(content, _KIND, ModelFormatError, "file")
    return dict(zip(header["parts"], blobs, strict=True))


def sealed(parts, /, **header):
    """A file with a valid checksum."""
    header = {"content_version": 1, "parts": list(parts), **header}
    return envelope.seal(_KIND, header, list(parts.values()))


def with_rim(content, change):
    """The file with a changed description."""
    parts = parts_of(content)
    rim = json.loads(parts["rim"])
    change(rim)
    return sealed({**parts, "rim": json.dumps(rim).encode()})


@pytest.mark.parametrize("name", MODULES)
def test_a_loaded_module_is_the_saved_one_bit_for_bit(name, tmp_path):
    m, x = quantized(name), data(name, seed=1)
    m.save(tmp_path / "one")
    twin = QuantizedModule.load(tmp_path / "one")
    twin.save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert twin.program == m.program
    codes = random_codes(m, 20)
    assert_same(twin.quantized_forward(*codes), m.quantized_forward(*codes))
    for fhe in ("disable", "simulate"):
        assert_same(twin(*x, fhe=fhe), m(*x, fhe=fhe))
    assert_same(twin.overflowing_rows(*x), m.overflowing_rows(*x))
    assert twin.report(*x) == m.report(*x)


def test_settings_options_and_whether_it_is_compiled_are_kept(tmp_path):
    m = build_quantized_module(
        module("mlp"), data("mlp"), n_bits=3, rounding_threshold_bits=APPROXIMATE, observer="mse", margin=0.25
    )
    m.compile(p_error=2.0**-20)
    m.save(tmp_path / "module")
    twin = QuantizedModule.load(tmp_path / "module")
    assert twin.is_compiled
    assert twin._compiled.options == m._compiled.options
    assert twin._compiled.network.settings == m._compiled.network.settings
    assert twin.fhe_circuit.fingerprint == m.fhe_circuit.fingerprint


def test_saving_replaces_a_file_and_equal_modules_make_equal_files(tmp_path):
    path = tmp_path / "module"
    path.write_bytes(b"old")
    quantized("mlp").save(path)
    first = path.read_bytes()
    build_quantized_module(module("mlp"), data("mlp"), n_bits=3, rounding_threshold_bits=5).save(path)
    assert path.read_bytes() == first


def test_every_altered_byte_is_noticed(saved, load):
    rng = np.random.default_rng(0)
    for position in [*range(20), *rng.integers(0, len(saved), 150).tolist(), len(saved) - 1]:
        altered = bytearray(saved)
        altered[position] ^= int(rng.integers(1, 256))
        with pytest.raises(ModelFormatError):
            load(bytes(altered))


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_cut_files_are_noticed(saved, load, size):
    with pytest.raises(ModelFormatError):
        load(saved[:size])


def test_missing_files_are_file_not_found_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        QuantizedModule.load(tmp_path / "nowhere")


def _set(*path):
    *keys, last, value = path

    def change(rim):
        for key in keys:
            rim = rim[key]
        rim[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("encoders", 0, "scale", "values", [0.0]),
        _set("encoders", 0, "scale", "values", [float("nan")]),
        _set("encoders", 0, "scale", "values", [float("inf")]),
        _set("encoders", 0, "scale", "values", ["1"]),
        _set("encoders", 0, "scale", "shape", [10**12]),
        _set("encoders", 0, "lo", {"shape": [1], "values": [-(10**6)]}),
        _set("encoders", 0, "lo", {"shape": [1], "values": [-(10**30)]}),
        _set("encoders", 0, "hi", {"shape": [1], "values": [0.5]}),
        _set("encoders", 0, "row", [3]),
        _set("encoders", 0, "shape", [4]),
        _set("encoders", 0, "name", "other"),
        _set("encoders", 0, "name", 3),
        _set("encoders", []),
        _set("decoders", 0, "scale", {"shape": [1], "values": [-1.0]}),
        _set("decoders", 0, "row", [2]),
        _set("decoders", 0, "row", [-3]),
        _set("decoders", 0, "name", "other"),
        _set("probes", 0, "node", 10**6),
        _set("probes", 0, "node", -1),
        _set("probes", 0, "node", True),
        _set("probes", 0, "tensor", "other"),
        _set("probes", 0, "scale", {"shape": [7, 7], "values": [1.0] * 49}),
        _set("settings", "bounds", "guessed"),
        _set("settings", "n_bits", "op_inputs", 99),
        _set("settings", "rounding", {"n_bits": 99}),
        _set("settings", "unknown", 1),
        _set("options", "p_error", 2.0),
        _set("options", "security_level", 80),
        _set("options", "__class__", "os.system"),
        _set("steps", [["pass"]]),
        _set("steps", 3),
        _set("is_compiled", 1),
        _set("weight_bits", [1]),
        _set("inputs_encryption_status", ["clear"]),
        _set("inputs_encryption_status", ["encrypted", "encrypted"]),
        _set("inputs_encryption_status", "encrypted"),
        lambda rim: rim.pop("probes"),
        lambda rim: rim.clear(),
    ],
)
def test_descriptions_that_do_not_fit_are_refused_though_their_checksum_holds(saved, load, change):
    with pytest.raises(ModelFormatError):
        load(with_rim(saved, change))


@pytest.mark.parametrize("rim", [b"", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"steps": 1e999}'])
def test_descriptions_that_are_no_description_are_refused(saved, load, rim):
    with pytest.raises(ModelFormatError):
        load(sealed({**parts_of(saved), "rim": rim}))


def test_parts_are_verified_one_by_one(saved, load):
    parts = parts_of(saved)
    with pytest.raises(ProgramFormatError):
        load(sealed({**parts, "program": b"PK"}))
    with pytest.raises(ProgramFormatError):
        load(sealed({**parts, "raw": parts["raw"][:-1]}))
    for name in ("model", "body", "after"):
        with pytest.raises(ModelFormatError):
            load(sealed({**parts, name: b"\x08\x08"}))
        with pytest.raises(ModelFormatError):
            load(sealed({**parts, name: b"not a graph"}))
    with pytest.raises(ModelFormatError, match="must hold the parts"):
        load(sealed({name: part for name, part in parts.items() if name != "body"}))
    with pytest.raises(ModelFormatError, match="must hold the parts"):
        load(sealed({**parts, "code.py": b"import os"}))
    with pytest.raises(ModelFormatError, match="do not fit each other"):
        load(sealed({name: part for name, part in parts.items() if name != "after"}))


def test_programs_and_graphs_of_another_network_are_refused(saved, load, tmp_path):
    quantized("two inputs").save(tmp_path / "other")
    parts, others = parts_of(saved), parts_of((tmp_path / "other").read_bytes())
    for names in (["program"], ["raw"], ["program", "raw"], ["body"], ["model"], ["rim"], ["rim", "program", "raw"]):
        with pytest.raises(ModelFormatError):
            load(sealed({**parts, **{name: others[name] for name in names}}))


@pytest.mark.parametrize("end", ["input", "output"])
def test_models_whose_ends_have_other_names_than_those_of_its_parts_are_refused(saved, load, end):
    parts = parts_of(saved)
    model = onnx.load_from_string(parts["model"])
    (old,) = (info.name for info in getattr(model.graph, end))
    renamed = onnx.compose.add_prefix_graph(model.graph, "other_", rename_initializers=False)
    assert getattr(renamed, end)[0].name == f"other_{old}"
    model.graph.CopyFrom(renamed)
    with pytest.raises(ModelFormatError, match="do not fit each other"):
        load(sealed({**parts, "model": model.SerializeToString()}))


def test_files_of_other_kinds_and_newer_versions_say_so(saved, load):
    parts = parts_of(saved)
    with pytest.raises(ModelFormatError, match="upgrade fhelearn"):
        load(sealed(parts, content_version=2))
    with pytest.raises(ModelFormatError, match="expected 'network'"):
        load(envelope.seal("keys", {}, []))
    with pytest.raises(ModelFormatError, match="must hold the parts"):
        load(sealed(parts, parts=None))


def test_graphs_that_point_to_other_files_are_refused(saved, load):
    parts = parts_of(saved)
    model = onnx.load_from_string(parts["model"])
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(ModelFormatError):
        load(sealed({**parts, "model": model.SerializeToString()}))


def test_random_descriptions_give_errors_of_this_library_only(saved, load):
    rng = np.random.default_rng(1)
    parts = parts_of(saved)
    for _ in range(200):
        rim = bytearray(parts["rim"])
        for position in rng.integers(0, len(rim), 3):
            rim[position] = int(rng.choice(np.frombuffer(b'0123456789-[]{},:"aetn. ', dtype=np.uint8)))
        try:
            load(sealed({**parts, "rim": bytes(rim)}))
        except FhelearnError:
            continue

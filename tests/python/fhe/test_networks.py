"""Networks of every kind on real ciphertexts: what is decrypted is what `simulate` said, bit for bit."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fhelearn.torch import QuantizedModule, build_quantized_module
from tests.python.fhe.shared_keys import with_keys
from tests.python.torch.networks import as_tuple, assert_same, data, module

pytestmark = pytest.mark.fhe

FEW_BITS = {"model_inputs": 2, "op_inputs": 2, "op_weights": 2, "model_outputs": 4}


def pooled(pooling):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(1, 1, 2), nn.ReLU(), pooling, nn.Flatten(), nn.Linear(4, 2))


POOLINGS = {
    "average pooling": lambda: pooled(nn.AvgPool2d((1, 2))),
    "max pooling": lambda: pooled(nn.MaxPool2d((1, 2))),
}


def network(name, **settings):
    """A small network, its calibration rows, and two rows to encrypt, none of which overflows."""
    settings = {"n_bits": FEW_BITS, **settings}
    if name in POOLINGS:
        rows = (np.random.default_rng(0).normal(size=(60, 1, 3, 5)).astype(np.float32),)
        return build_quantized_module(POOLINGS[name](), rows, **settings), rows
    return build_quantized_module(module(name), data(name), **settings), data(name)


def compiled(name, **settings):
    m, x = network(name, **settings)
    with_keys(m.compile().fhe_circuit)
    return m, tuple(a[:2] for a in x)


KINDS = ["mlp", "cnn", "depthwise", "residual", "concatenation", "attention", "two inputs", "embedding", *POOLINGS]


@pytest.mark.parametrize("name", KINDS)
def test_encrypted_rows_of_every_kind_decrypt_to_what_was_simulated(name):
    m, x = compiled(name)
    assert_same(m(*x, fhe="execute"), m(*x, fhe="simulate"))


def test_exactly_rounded_accumulators_decrypt_to_what_was_simulated():
    m, x = compiled("mlp", n_bits=3, rounding_threshold_bits=3)
    assert any(node.op == "round" for node in m.program.nodes)
    assert_same(m(*x, fhe="execute"), m(*x, fhe="simulate"))


def test_approximately_rounded_accumulators_are_off_by_at_most_one_step_of_each_lookup():
    m, x = compiled("mlp", n_bits=3, rounding_threshold_bits={"n_bits": 4, "method": "approximate"})
    nodes = m.program.nodes
    (rounding,) = [node for node in nodes if node.op == "round"]
    (lookup,) = [node for node in nodes if node.op == "table_lookup"]
    *_, weights = [node.array("weights") for node in nodes if node.op == "matmul"]
    step, table = 2 ** rounding.integer("lsbs"), lookup.array("table")
    jump = np.abs(table[..., step:] - table[..., :-step]).max(axis=-1)
    bound = np.broadcast_to(jump, lookup.value.shape) @ np.abs(weights)
    codes = m.quantize_input(*x)
    assert (np.abs(m.quantized_forward(codes, fhe="execute") - m.quantized_forward(codes)) <= bound).all()


def test_rows_that_overflow_wrap_as_they_are_simulated():
    m, _ = compiled("mlp", margin=0.0)
    far = tuple(8 * a for a in data("mlp", seed=4))
    rows = m.overflowing_rows(*far)[:2]
    assert len(rows) == 2
    codes = as_tuple(m.quantize_input(*(a[rows] for a in far)))
    assert_same(m.quantized_forward(*codes, fhe="execute"), m.quantized_forward(*codes))


def test_a_clear_input_beside_an_encrypted_one_decrypts_to_what_was_simulated():
    m, x = compiled("two inputs", inputs_encryption_status=["encrypted", "clear"])
    assert_same(m(*x, fhe="execute"), m(*x, fhe="simulate"))


def test_keys_are_neither_saved_nor_copied(tmp_path):
    m, x = compiled("mlp")
    m(*x, fhe="execute")
    m.save(tmp_path / "with keys")
    fresh, _ = network("mlp")
    fresh.compile().save(tmp_path / "without")
    assert (tmp_path / "with keys").read_bytes() == (tmp_path / "without").read_bytes()
    for twin in (QuantizedModule.load(tmp_path / "with keys"), copy.deepcopy(m)):
        assert twin.fhe_circuit.keys is None
        assert twin.fhe_circuit.fingerprint == m.fhe_circuit.fingerprint
        twin.fhe_circuit.keys = m.fhe_circuit.keys
        assert_same(twin(*x, fhe="execute"), m(*x, fhe="simulate"))


def test_the_steps_of_client_and_server_are_those_of_execute():
    m, x = compiled("classifier")
    circuit = m.fhe_circuit
    encrypted = circuit.encrypt(as_tuple(m.quantize_input(*x)))
    answered = m.dequantize_output(*circuit.decrypt(circuit.run(encrypted)))
    assert_same(answered, m(*x, fhe="simulate"))

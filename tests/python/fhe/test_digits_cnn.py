"""The digits network on real ciphertexts: the label that simulation gives."""

import pytest

from fhelearn.torch import compile_torch_model
from tests.python.fhe.shared_keys import with_keys
from tests.python.torch.digits_cnn import N_BITS, ROUNDING, trained_digits

pytestmark = pytest.mark.fhe


def test_encrypted_digits_get_the_label_that_simulation_gives():
    digits = trained_digits()
    module = compile_torch_model(digits.model, digits.x[:500], n_bits=N_BITS, rounding_threshold_bits=ROUNDING)
    with_keys(module.fhe_circuit)
    rows = digits.held_out[:2]
    executed, simulated = (module.forward(rows, fhe=mode).argmax(axis=1) for mode in ("execute", "simulate"))
    assert (executed == simulated).all()

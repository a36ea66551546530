"""Law: every node test of the ONNX project that can be expressed is as near, at 8 bits, as its scales allow."""

import fnmatch
import warnings

import pytest

from fhelearn.exceptions import FhelearnError
from tests.python.onnx_node_tests import CLAIMED
from tests.python.onnx_nodes.cases import WITHOUT_DATA, Case, cases
from tests.python.onnx_nodes.laws import Quantized, assert_near_the_float_model, cleaned, settings
from tests.python.onnx_nodes.refused import NOT_EXPRESSIBLE, refused


def imported(case: Case, bounds: str) -> Quantized:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Quantized.of(case, cleaned(case), settings(8, bounds=bounds))


def of_operator(op_type: str) -> list[Case]:
    return [case for case in cases() if case.op_type == op_type]


@pytest.mark.parametrize("op_type", sorted(CLAIMED - WITHOUT_DATA))
def test_every_case_is_as_near_to_the_float_model_as_its_scales_allow(op_type: str) -> None:
    found = [case for case in of_operator(op_type) if not refused(case.name)]
    assert found
    for case in found:
        for bounds in ("proved", "calibrated"):
            assert_near_the_float_model(imported(case, bounds))


@pytest.mark.parametrize("reason", NOT_EXPRESSIBLE)
def test_what_cannot_be_expressed_is_refused_with_a_reason(reason: str) -> None:
    for pattern in NOT_EXPRESSIBLE[reason]:
        matching = [case for case in cases() if fnmatch.fnmatchcase(case.name, pattern)]
        assert matching, pattern
        for case in matching:
            for bounds in ("proved", "calibrated"):
                with pytest.raises(FhelearnError):
                    imported(case, bounds)

"""Node tests that cannot be expressed as an encrypted program, and why. A test holds that all of them are refused."""

import fnmatch

NOT_EXPRESSIBLE = {
    "three spatial axes": (
        "test_averagepool_3d_*", "test_maxpool_3d_*", "test_convtranspose_3d",
    ),
    "a batch of 3 in a transposed convolution": ("test_convtranspose_group_2_image_3",),
    "training": (
        "test_batchnorm_*_training_mode", "test_training_dropout", "test_training_dropout_default",
        "test_training_dropout_default_mask", "test_training_dropout_mask",
    ),
    "integer division by an encrypted number": (
        "test_div_*int*[[]x,y]",
    ),
    "0 is among the numbers that the divisor, or the base of a negative power, can be": (
        "test_div_int32_trunc[[]y]", "test_mod_float_edge_cases_fmod_0_*", "test_pow[[]?]", "test_reciprocal_example",
    ),
    "fmod is 0 for floats, which ONNX forbids": ("test_mod_float*_mixed_sign_fmod_0",),
    "positions of maxima": ("test_maxpool_with_argmax_2d_*",),
    "no elements": (
        "test_reduce_*_empty_set", "test_reduce_max_empty_set_bool", "test_reduce_sum_empty_set_non_reduced_axis_zero",
        "test_reshape_allowzero_reordered", "test_shape_start_greater_than_end", "test_slice_start_out_of_bounds",
        "test_split_zero_size_splits_opset*",
    ),
}  # fmt: skip
"""By reason, patterns for the names of cases that are refused."""


def refused(name: str) -> bool:
    """Whether a case is in the list."""
    return any(fnmatch.fnmatchcase(name, p) for patterns in NOT_EXPRESSIBLE.values() for p in patterns)

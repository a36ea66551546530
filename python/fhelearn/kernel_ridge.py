"""Kernel ridge regression: scikit-learn's own classes and parameters, predicting on encrypted data.

Added to each class: the keyword-only parameter `n_bits`, the method `compile`, and the keyword `fhe` of the prediction
methods; see :class:`fhelearn.estimators.FHELinearMixin`.
"""
# mypy: disallow-subclassing-any=False
# ruff: noqa: D101 (the mix-in derives each docstring from scikit-learn's)

from __future__ import annotations

from sklearn import kernel_ridge

from fhelearn.estimators.adapters import KernelRidgeAdapter
from fhelearn.estimators.mixin import FHELinearMixin

__all__ = [
    "KernelRidge",
]


class KernelRidge(FHELinearMixin, kernel_ridge.KernelRidge):
    _fhe_adapter = KernelRidgeAdapter()

"""Kernel ridge regression on encrypted data; for what is added, see :mod:`fhelearn.linear_model`."""
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

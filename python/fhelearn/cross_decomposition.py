"""Partial least squares: scikit-learn's own classes and parameters, predicting on encrypted data.

Added to each class: the keyword-only parameter `n_bits`, the method `compile`, and the keyword `fhe` of the prediction
methods; see :class:`fhelearn.estimators.FHELinearMixin`.
"""
# mypy: disallow-subclassing-any=False
# ruff: noqa: D101 (the mix-in derives each docstring from scikit-learn's)

from __future__ import annotations

from sklearn import cross_decomposition

from fhelearn.estimators.adapters import CenteredAdapter
from fhelearn.estimators.mixin import FHELinearMixin

__all__ = [
    "CCA",
    "PLSCanonical",
    "PLSRegression",
]


class PLSRegression(FHELinearMixin, cross_decomposition.PLSRegression):
    _fhe_adapter = CenteredAdapter()


class PLSCanonical(FHELinearMixin, cross_decomposition.PLSCanonical):
    _fhe_adapter = CenteredAdapter()


class CCA(FHELinearMixin, cross_decomposition.CCA):
    _fhe_adapter = CenteredAdapter()

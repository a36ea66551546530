"""Partial least squares on encrypted data; for what is added, see :mod:`fhelearn.linear_model`."""
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

"""Support vector machines on encrypted data; for what is added, see :mod:`fhelearn.linear_model`."""
# mypy: disallow-subclassing-any=False
# ruff: noqa: D101 (the mix-in derives each docstring from scikit-learn's)

from __future__ import annotations

from sklearn import svm

from fhelearn.estimators.adapters import LibsvmAdapter
from fhelearn.estimators.mixin import FHEDecisionMixin, FHELinearMixin, FHEProbabilityMixin

__all__ = [
    "SVC",
    "SVR",
    "LinearSVC",
    "LinearSVR",
    "NuSVC",
    "NuSVR",
    "OneClassSVM",
]


class LinearSVC(FHEDecisionMixin, svm.LinearSVC): ...


class LinearSVR(FHELinearMixin, svm.LinearSVR): ...


class SVC(FHEDecisionMixin, FHEProbabilityMixin, svm.SVC):
    _fhe_adapter = LibsvmAdapter()


class NuSVC(FHEDecisionMixin, FHEProbabilityMixin, svm.NuSVC):
    _fhe_adapter = LibsvmAdapter()


class SVR(FHELinearMixin, svm.SVR):
    _fhe_adapter = LibsvmAdapter()


class NuSVR(FHELinearMixin, svm.NuSVR):
    _fhe_adapter = LibsvmAdapter()


class OneClassSVM(FHEDecisionMixin, svm.OneClassSVM):
    _fhe_adapter = LibsvmAdapter()

"""Linear discriminant analysis on encrypted data; for what is added, see :mod:`fhelearn.linear_model`."""
# mypy: disallow-subclassing-any=False
# ruff: noqa: D101 (the mix-in derives each docstring from scikit-learn's)

from __future__ import annotations

from sklearn import discriminant_analysis

from fhelearn.estimators.mixin import FHEDecisionMixin, FHEProbabilityMixin

__all__ = [
    "LinearDiscriminantAnalysis",
]


class LinearDiscriminantAnalysis(
    FHEDecisionMixin, FHEProbabilityMixin, discriminant_analysis.LinearDiscriminantAnalysis
): ...

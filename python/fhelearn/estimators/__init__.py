"""The mix-in that every public estimator shares, and what it is made of."""

from fhelearn.estimators.mixin import FHELinearMixin
from fhelearn.estimators.report import LinearReport

__all__ = ["FHELinearMixin", "LinearReport"]

"""The mix-ins that every public estimator shares, and what they are made of."""

from fhelearn.estimators.base import FHEMixin
from fhelearn.estimators.forest_mixin import FHEForestMixin
from fhelearn.estimators.forest_report import ForestReport
from fhelearn.estimators.mixin import FHELinearMixin
from fhelearn.estimators.report import LinearReport

__all__ = ["FHEForestMixin", "FHELinearMixin", "FHEMixin", "ForestReport", "LinearReport"]

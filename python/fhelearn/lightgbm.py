"""LightGBM's own classes and parameters, predicting on encrypted data; see :mod:`fhelearn.tree`.

Needs LightGBM: ``pip install "fhelearn[lightgbm]"``.
"""
# mypy: disallow-subclassing-any=False
# ruff: noqa: D101 (the mix-in derives each docstring from LightGBM's)

from __future__ import annotations

from typing import Any

try:
    import lightgbm
except ImportError as error:
    raise ImportError('fhelearn.lightgbm needs LightGBM: pip install "fhelearn[lightgbm]"') from error

from fhelearn.estimators.forest_mixin import FHEForestMixin, FHEForestProbabilityMixin
from fhelearn.estimators.lightgbm_forests import LightGBMAdapter

__all__ = [
    "LGBMClassifier",
    "LGBMRegressor",
]


# LightGBM looks for its own class right behind the first base, so each class has one mix-in. Its methods name
# parameters of their own, which those that the mix-in declares for type checkers do not have.
class _LightGBMMixin(FHEForestMixin):
    _fhe_adapter = LightGBMAdapter()

    def _process_params(self, stage: str) -> dict[str, Any]:
        """Parameters for LightGBM, which warns of those that it does not know."""
        params: dict[str, Any] = super()._process_params(stage)  # type: ignore[misc]  # LGBMModel's
        params.pop("n_bits", None)
        return params


class _LightGBMClassifierMixin(_LightGBMMixin, FHEForestProbabilityMixin): ...


class LGBMClassifier(_LightGBMClassifierMixin, lightgbm.LGBMClassifier): ...  # type: ignore[misc]


class LGBMRegressor(_LightGBMMixin, lightgbm.LGBMRegressor): ...  # type: ignore[misc]

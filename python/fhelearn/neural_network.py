"""Multi-layer perceptrons: scikit-learn's own classes and parameters, predicting on encrypted data.

Added to each class: the keyword-only parameter `n_bits`, the method `compile`, and the keyword `fhe` of the prediction
methods; see :class:`fhelearn.estimators.network_mixin.FHENetworkMixin`.
"""
# mypy: disallow-subclassing-any=False
# ruff: noqa: D101 (the mix-in derives each docstring from scikit-learn's)

from __future__ import annotations

from sklearn import neural_network

from fhelearn.estimators.network_mixin import FHENetworkMixin, FHENetworkProbabilityMixin

__all__ = ["MLPClassifier", "MLPRegressor"]


class MLPClassifier(FHENetworkProbabilityMixin, neural_network.MLPClassifier): ...


class MLPRegressor(FHENetworkMixin, neural_network.MLPRegressor): ...

"""Discrete naive Bayes on encrypted data; for what is added, see :mod:`fhelearn.linear_model`."""
# mypy: disallow-subclassing-any=False
# ruff: noqa: D101 (the mix-in derives each docstring from scikit-learn's)

from __future__ import annotations

from sklearn import naive_bayes

from fhelearn.estimators.adapters import BernoulliAdapter, NaiveBayesAdapter
from fhelearn.estimators.mixin import FHEProbabilityMixin

__all__ = [
    "BernoulliNB",
    "ComplementNB",
    "MultinomialNB",
]


class MultinomialNB(FHEProbabilityMixin, naive_bayes.MultinomialNB):
    _fhe_adapter = NaiveBayesAdapter()


class ComplementNB(FHEProbabilityMixin, naive_bayes.ComplementNB):
    _fhe_adapter = NaiveBayesAdapter()


class BernoulliNB(FHEProbabilityMixin, naive_bayes.BernoulliNB):
    _fhe_adapter = BernoulliAdapter()

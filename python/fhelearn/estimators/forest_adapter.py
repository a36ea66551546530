"""What every family of tree models must tell, so that its forest can predict in the library's place."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from fhelearn.frontends.tree import Forest
from fhelearn.typing import FloatArray


class ForestAdapter(Protocol):
    """Reads one family of estimators as a forest, and turns the forest's scores into the library's answers.

    No answer is computed here: :meth:`view` makes a shallow copy of the estimator whose lowest function returns scores,
    and the library's own methods turn these into labels, probabilities or means.
    """

    def forest(self, estimator: Any) -> Forest:
        """The forest that a fitted estimator predicts with. Raises LoweringError if it is not exactly one."""
        ...

    def prepare(self, estimator: Any, X: Any) -> NDArray[Any]:
        """What the client encodes: `X` as the library validates and preprocesses it.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n, n_features)
            What the library's ``predict`` takes.

        Returns
        -------
        x : ndarray of float32 or float64, shape (n, n_features), C-contiguous
            Holds NaN only where the model takes it.

        Raises
        ------
        ValueError, TypeError
            The library's own, as ``predict`` raises them.
        """
        ...

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """Small fingerprints that tell whether :meth:`forest` or :meth:`prepare` changed since `compile`.

        They are the same for a pickled copy, on every machine.
        """
        ...

    def view(self, estimator: Any, scores: FloatArray) -> Any:
        """A copy of `estimator` whose prediction methods, called on :meth:`placeholder`, answer what `scores` say.

        scores: float64, shape (n, n_outputs of the forest). `estimator` is not changed. The view serves this call
        only: it cannot be pickled.
        """
        ...

    def placeholder(self, estimator: Any, n: int) -> NDArray[Any]:
        """What the view's methods take for n rows: zeros of shape (n, n_features)."""
        ...

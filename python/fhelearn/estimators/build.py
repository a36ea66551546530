"""Builds what a class that mixes FHEMixin into a library's class needs, from the library's class itself.

Signatures, docstrings and constraints are derived, never copied, so they are those of the installed release.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils.metaestimators import available_if

METHODS = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "predict_joint_log_proba",
    "decision_function",
    "score_samples",
)
"""Methods that get the keyword `fhe` where the scikit-learn class has them."""

TRAINERS = ("fit", "partial_fit")
"""Methods that drop the compiled state first."""


@dataclass(frozen=True)
class BitsParameter:
    """The constructor's added parameter `n_bits`, as a family of models has it.

    `constraints` are scikit-learn's parameter constraints; `text` is its entry in the class docstring.
    """

    default: Any
    constraints: tuple[Any, ...]
    text: str


METHOD_PARAMETERS = """
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Where to compute: the library in floats, the exact integer engine on quantized data, or encrypted data.
            The last two need :meth:`compile`.

        n_jobs : int, default=None
            Parallel jobs for "execute" (through joblib), threads for "simulate".

        progress : bool, default=None
            Whether "execute" shows a progress bar; None shows one for several rows on a terminal.
"""


def scikit_learn_base(cls: type, mixin: type) -> type | None:
    """The scikit-learn class that `cls` mixes `mixin` into itself, or None if it only inherits from such a class."""
    bases = [base for base in cls.__bases__ if not issubclass(base, mixin)]
    direct = any(issubclass(base, mixin) and not hasattr(base, "fit") for base in cls.__bases__)
    return next((base for base in bases if direct and hasattr(base, "fit")), None)


def build(cls: Any, base: Any, bits: BitsParameter) -> None:
    """Give `cls`, which mixes into `base`, its constructor, docstring, constraints and methods."""
    if "__init__" not in cls.__dict__:
        _set_constructor(cls, base, bits.default)
    cls._parameter_constraints = {
        **getattr(base, "_parameter_constraints", {}),
        "n_bits": list(bits.constraints),
    }
    if cls.__doc__ is None or cls.__doc__ is base.__doc__:
        cls.__doc__ = document(base.__doc__, bits.text, "Attributes")
    if isinstance(inspect.getattr_static(base, "path", None), staticmethod):
        cls.path = staticmethod(_path(cls, base))
    for name in TRAINERS:
        if hasattr(base, name) and name not in cls.__dict__:
            setattr(cls, name, _trainer(cls, base, name))
    for name in METHODS:
        if hasattr(base, name) and name not in cls.__dict__:
            setattr(cls, name, _method(cls, base, name))


def document(text: str | None, paragraph: str, before: str) -> str | None:
    """Insert `paragraph` into a numpydoc text, ahead of the section `before`, or at the end if there is none."""
    if text is None:
        return None
    lines = text.splitlines()
    place = next((i for i, line in enumerate(lines) if line.strip() == before), len(lines))
    return "\n".join([*lines[:place], *paragraph.strip("\n").splitlines(), "", *lines[place:]])


def _with_keywords(signature: inspect.Signature, **defaults: Any) -> inspect.Signature:
    """`signature` with keyword-only parameters added, ahead of any ``**kwargs``."""
    parameters = list(signature.parameters.values())
    tail = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value) for name, value in defaults.items()]
    return signature.replace(parameters=[*(p for p in parameters if p not in tail), *added, *tail])


def _set_constructor(cls: Any, base: Any, default: Any) -> None:
    @functools.wraps(base.__init__)
    def __init__(self: Any, *args: Any, n_bits: Any = default, **kwargs: Any) -> None:
        super(cls, self).__init__(*args, **kwargs)
        self.n_bits = n_bits

    signature = _with_keywords(inspect.signature(base.__init__), n_bits=default)
    _own(cls, __init__, signature)
    cls.__init__ = __init__
    if hasattr(base, "__signature__"):  # scikit-learn sets it on deprecated classes, and it would be inherited
        cls.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])


def _own(cls: Any, function: Any, signature: inspect.Signature) -> None:
    function.__signature__ = signature
    function.__module__ = cls.__module__
    function.__qualname__ = f"{cls.__qualname__}.{function.__name__}"


def _path(cls: Any, base: Any) -> Callable[..., Any]:
    """``path`` of LassoCV and its like, whose `fit` passes it every constructor parameter, `n_bits` among them."""

    @functools.wraps(base.path)
    def path(*args: Any, n_bits: Any = None, **kwargs: Any) -> Any:
        return base.path(*args, **kwargs)

    _own(cls, path, inspect.signature(base.path))
    path.__qualname__ = f"{cls.__qualname__}.path"
    return path


def _trainer(cls: Any, base: Any, name: str) -> Callable[..., Any]:
    original = getattr(base, name)

    @functools.wraps(original)
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.__dict__.pop("_fhe_compiled", None)
        return getattr(super(cls, self), name)(*args, **kwargs)

    _own(cls, train, inspect.signature(original))
    return train


def _method(cls: Any, base: Any, name: str) -> Any:
    original = getattr(base, name)
    signature = inspect.signature(original)

    @functools.wraps(original)
    def method(
        self: Any, X: Any, *args: Any, fhe: str = "disable", n_jobs: Any = None, progress: Any = None, **kwargs: Any
    ) -> Any:
        check_keywords(fhe, n_jobs, progress)
        if fhe == "disable":
            return getattr(super(cls, self), name)(X, *args, **kwargs)
        try:
            given = list(signature.bind(self, X, *args, **kwargs).arguments.items())[2:]
        except TypeError as error:
            raise TypeError(f"{cls.__name__}.{name}() {error}") from None
        changed = [key for key, value in given if value is not signature.parameters[key].default]
        if changed:
            raise ValueError(
                f"{cls.__name__}.{name}: {', '.join(changed)} cannot be combined with fhe={fhe!r}, because only the "
                'scores come back from the encrypted side; use fhe="disable"'
            )
        return self._fhe_answer(name, X, fhe, n_jobs, progress)

    _own(cls, method, _with_keywords(signature, fhe="disable", n_jobs=None, progress=None))
    method.__doc__ = document(original.__doc__, METHOD_PARAMETERS, "Returns")
    if hasattr(inspect.getattr_static(base, name), "__get__") and not inspect.isfunction(
        inspect.getattr_static(base, name)
    ):
        # Conditional in scikit-learn (SGDClassifier.predict_proba depends on the loss): as conditional here.
        return available_if(lambda self: getattr(super(cls, self), name))(method)
    return method


def check_keywords(fhe: Any, n_jobs: Any, progress: Any) -> None:
    """Refuse values of the added keywords that no mode takes."""
    if not isinstance(fhe, str) or fhe not in ("disable", "simulate", "execute"):
        raise ValueError(f'fhe must be "disable", "simulate" or "execute", got {fhe!r}')
    if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, Integral)):
        raise TypeError(f"n_jobs must be an int or None, got {n_jobs!r}")
    if n_jobs == 0:
        raise ValueError("n_jobs must not be 0; None means 1 job, -1 one per processor")
    if progress is not None and not isinstance(progress, bool | np.bool_):
        raise TypeError(f"progress must be True, False or None, got {progress!r}")

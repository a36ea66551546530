"""Program to program, one effect per pass; a generic test runs every registered pass on random programs."""

from collections.abc import Callable, Mapping

from fhelearn.ir import Program
from fhelearn.passes.canonicalize_linear import canonicalize_linear, is_canonical
from fhelearn.passes.eliminate_dead_nodes import eliminate_dead_nodes
from fhelearn.passes.expand_products import expand_products
from fhelearn.passes.fold_constant_lookups import fold_constant_lookups
from fhelearn.passes.share_equal_lookups import share_equal_lookups

PASSES: Mapping[str, Callable[[Program], Program]] = {
    "canonicalize_linear": canonicalize_linear,
    "eliminate_dead_nodes": eliminate_dead_nodes,
    "expand_products": expand_products,
    "fold_constant_lookups": fold_constant_lookups,
    "share_equal_lookups": share_equal_lookups,
}

__all__ = [
    "PASSES",
    "canonicalize_linear",
    "eliminate_dead_nodes",
    "expand_products",
    "fold_constant_lookups",
    "is_canonical",
    "share_equal_lookups",
]

"""Program to program, one effect per pass; a generic test runs every registered pass on random programs."""

from collections.abc import Callable, Mapping

from fhelearn.ir import Program
from fhelearn.passes.canonicalize_linear import canonicalize_linear, is_canonical
from fhelearn.passes.eliminate_dead_nodes import eliminate_dead_nodes
from fhelearn.passes.expand_products import expand_products
from fhelearn.passes.share_equal_lookups import share_equal_lookups

PASSES: Mapping[str, Callable[[Program], Program]] = {
    "canonicalize_linear": canonicalize_linear,
    "eliminate_dead_nodes": eliminate_dead_nodes,
    "expand_products": expand_products,
    "share_equal_lookups": share_equal_lookups,
}

__all__ = [
    "PASSES",
    "canonicalize_linear",
    "eliminate_dead_nodes",
    "expand_products",
    "is_canonical",
    "share_equal_lookups",
]

"""Front end of decision trees and their ensembles: a fitted model becomes a forest, a forest a program."""

from fhelearn.frontends.tree.forest import Forest, TreeNodes
from fhelearn.frontends.tree.grid import Grid
from fhelearn.frontends.tree.quantize import (
    EncodingName,
    ForestOptions,
    NativeForest,
    QuantizedForest,
    native_forest,
    place,
    quantize_forest,
    rounded_scores,
)

__all__ = [
    "EncodingName",
    "Forest",
    "ForestOptions",
    "Grid",
    "NativeForest",
    "QuantizedForest",
    "TreeNodes",
    "native_forest",
    "place",
    "quantize_forest",
    "rounded_scores",
]

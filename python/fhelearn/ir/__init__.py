"""The exact integer program: data with one meaning, fixed by :func:`evaluate`. SPEC.md is normative."""

from fhelearn.ir.builder import ProgramBuilder
from fhelearn.ir.cost import Cost, cost
from fhelearn.ir.interval import Bounds
from fhelearn.ir.ops import OPS
from fhelearn.ir.program import Attribute, Node, Program, Value
from fhelearn.ir.reference import Faults, evaluate
from fhelearn.ir.regions import (
    RegionType,
    check_wrappable,
    dropped_bits,
    may_fail,
    may_overflow,
    region_ids,
    region_widths,
    starts_region,
)
from fhelearn.ir.serialize import FORMAT_VERSION, content_digest, from_bytes, to_bytes
from fhelearn.ir.verify import DeclaredBounds, verify

__all__ = [
    "FORMAT_VERSION",
    "OPS",
    "Attribute",
    "Bounds",
    "Cost",
    "DeclaredBounds",
    "Faults",
    "Node",
    "Program",
    "ProgramBuilder",
    "RegionType",
    "Value",
    "check_wrappable",
    "content_digest",
    "cost",
    "dropped_bits",
    "evaluate",
    "from_bytes",
    "may_fail",
    "may_overflow",
    "region_ids",
    "region_widths",
    "starts_region",
    "to_bytes",
    "verify",
]

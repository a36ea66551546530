"""OPS: the one table of operations. SPEC.md states the same table in words; a test holds the two together."""

from fhelearn.ir import ops_levelled, ops_lookup, ops_static
from fhelearn.ir.op_spec import OpSpec

OPS: dict[str, OpSpec] = {
    spec.name: spec for spec in (*ops_static.SOURCES, *ops_levelled.SPECS, *ops_lookup.SPECS, *ops_static.SPECS)
}

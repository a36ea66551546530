"""What a circuit costs, read back from the compiled program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fhelearn.backends.concrete.compilation import Compiled
from fhelearn.backends.concrete.lowering import SINGLE, LoweredProgram
from fhelearn.backends.concrete.options import Strategy

_KEYGEN_BYTES_PER_SECOND = 70e6  # uncompressed keys made per second on one core (CONCRETE.md, section 4)


@dataclass(frozen=True)
class CostReport:
    """Cost of one row.

    Attributes
    ----------
    num_lookups : int
        Table lookups, counted by the compiler.
    lookups_by_bit_width : mapping of int to int
        The same by the width of the operand's encoding, which sets a lookup's price.
    lookups_by_node : mapping of str to int
        The same by node of the program that was compiled (its normal form).
    complexity : float
        The optimizer's price of the circuit, in elementary operations; for comparing circuits.
    p_error, global_p_error : float
        Probability that a lookup goes wrong, and that any of a row's does, with the chosen parameters.
    evaluation_key_bytes, secret_key_bytes : int
        Uncompressed, as they are in the server's and the client's memory.
    input_bytes_per_row, output_bytes_per_row : int
        Ciphertexts; inputs are compressed.
    parameters : mapping
        The chosen cryptographic parameters, as the library describes them.
    strategy : {"mono", "multi"}
        One parameter set or several.
    """

    num_lookups: int
    lookups_by_bit_width: Mapping[int, int]
    lookups_by_node: Mapping[str, int]
    complexity: float
    p_error: float
    global_p_error: float
    evaluation_key_bytes: int
    secret_key_bytes: int
    input_bytes_per_row: int
    output_bytes_per_row: int
    parameters: Mapping[str, Any] = field(repr=False)
    strategy: Strategy

    def estimated_keygen_seconds(self) -> float:
        """Rough time of key generation on one core."""
        return max(self.evaluation_key_bytes / _KEYGEN_BYTES_PER_SECOND, 0.1)


def _row_complexity(lowered: LoweredProgram, feedback: dict[str, Any]) -> float:
    """The optimizer adds up the lookups of all functions; without lookups it gives the dimension of a ciphertext."""
    rows = 1 + (lowered.batch_size if lowered.batch_size > 1 else 0)
    complexity = float(feedback["complexity"])
    return complexity / rows if lowered.num_lookups else complexity


def read_cost(lowered: LoweredProgram, compiled: Compiled) -> CostReport:
    """Cost of a row from the compiler's feedback."""
    feedback = compiled.feedback
    single = feedback["functions"][SINGLE]
    by_node = {
        lowered.program.label(int(tag[1:])): count
        for tag, count in single["lookups_per_tag"].items()
        if tag.startswith("n") and tag[1:].isdigit()
    }
    total = single["lookups"]
    per_lookup = feedback["p_error"]
    return CostReport(
        num_lookups=total,
        lookups_by_bit_width=dict(lowered.lookups_by_bit_width),
        lookups_by_node=by_node,
        complexity=_row_complexity(lowered, feedback),
        p_error=per_lookup,
        global_p_error=1.0 - (1.0 - per_lookup) ** max(total, 1) if per_lookup > 1e-6 else per_lookup * max(total, 1),
        evaluation_key_bytes=feedback["evaluation_key_bytes"],
        secret_key_bytes=feedback["secret_key_bytes"],
        input_bytes_per_row=single["input_bytes"],
        output_bytes_per_row=single["output_bytes"],
        parameters=json.loads(compiled.info)["keyset"],
        strategy=compiled.strategy,
    )

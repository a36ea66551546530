"""Text -> compiled program, with the parameter strategy that prices lower and errors that say what to change."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fhelearn.backends.concrete.lowering import LoweredProgram
from fhelearn.backends.concrete.native import Settings
from fhelearn.backends.concrete.options import CircuitOptions
from fhelearn.backends.concrete.server_process import NativeError, ServerProcessError, ServerStoppedError, call
from fhelearn.exceptions import BackendUnavailableError, LoweringError, ParametersNotFoundError

WIDEST_ALWAYS_MONO = 5
"""Up to here one parameter set is as fast as several and its keys are an eighth of the size: several are not tried."""

MULTI_ADVANTAGE = 0.8
"""Several parameter sets must price below this part of one set: smaller gains drown in noise and cost key bytes."""


@dataclass(frozen=True)
class Compiled:
    """A compiled program; its code is in the server process under the name `identifier`.

    Attributes
    ----------
    identifier : str
        SHA-256 (hex) of text and settings.
    settings : Settings
    info : bytes
        The library's description of functions and parameters (JSON).
    feedback : dict
        See :func:`fhelearn.backends.concrete.native.read_feedback`.
    """

    identifier: str
    settings: Settings
    info: bytes
    feedback: dict[str, Any]

    @property
    def strategy(self) -> Literal["mono", "multi"]:
        """How many parameter sets."""
        return "multi" if self.settings.multi else "mono"

    @property
    def uses_residues(self) -> bool:
        """Whether some input or output is encoded by residues (the compiler's choice for lookups on 9 to 16 bits)."""
        return b'"crt"' in self.info


def compile_cheapest(lowered: LoweredProgram, options: CircuitOptions) -> Compiled:
    """Compile with one parameter set, or several, or both to compare.

    With ``strategy="auto"``: one set if no lookup is wider than 5 bits (same speed, keys an eighth of the size,
    measured). Otherwise both are compiled, and several sets are kept if the optimizer prices them below 0.8 of one set.

    Raises
    ------
    ParametersNotFoundError
        If no cryptographic parameters exist; names the widest node.
    LoweringError
        If the compiler refuses the text.
    """
    p_error = options.lookup_p_error(lowered.num_lookups + len(lowered.results))
    plans = [options.strategy == "multi"]
    if options.strategy == "auto" and max(lowered.lookups_by_bit_width, default=0) > WIDEST_ALWAYS_MONO:
        plans = [False, True]
    found: list[Compiled] = []
    failure: LoweringError | None = None
    for multi in plans:
        try:
            found.append(compile_text(lowered, Settings(p_error, options.security_level, multi)))
        except ParametersNotFoundError as error:
            failure = error
    if not found:
        assert failure is not None
        raise failure
    if len(found) == 1:
        return found[0]
    mono, multi_sets = found
    return multi_sets if multi_sets.feedback["complexity"] < MULTI_ADVANTAGE * mono.feedback["complexity"] else mono


def compile_text(lowered: LoweredProgram, settings: Settings) -> Compiled:
    """Compile in the server process; raises as :func:`compile_cheapest`."""
    described = json.dumps(asdict(settings), sort_keys=True) + lowered.mlir
    identifier = hashlib.sha256(described.encode()).hexdigest()
    header = {"method": "compile", "program": identifier, "settings": asdict(settings)}
    try:
        reply, blobs = call(header, [lowered.mlir.encode()])
    except NativeError as error:
        raise _explain(error, lowered, settings) from error
    except ServerStoppedError:
        raise
    except ServerProcessError as error:
        raise LoweringError(
            f"the compiler died on this program (p_error={settings.p_error}, widest node {lowered.widest_region[0]}); "
            f"a larger p_error or narrower values may help: {error}"
        ) from error
    return Compiled(identifier, settings, blobs[0], reply["feedback"])


def _explain(error: NativeError, lowered: LoweredProgram, settings: Settings) -> Exception:
    text = str(error)
    if "NoParametersFound" in text or "Unfeasible" in text:
        label, width = lowered.widest_region
        return ParametersNotFoundError(
            f"{label}: no cryptographic parameters exist for this program; its widest values have {width} bits (with "
            f"{lowered.num_lookups} lookups at p_error={settings.p_error:.3g}). Use fewer n_bits for inputs or weights "
            "(narrower values), round before lookups, or allow a larger p_error"
        )
    if "ld " in text and "Command failed" in text and shutil.which("ld") is None:
        return BackendUnavailableError(
            "the compiler needs the linker 'ld', which is not on PATH; install binutils (apt-get install binutils, "
            "dnf install binutils; on macOS xcode-select --install)"
        )
    if "Command failed" in text or "emit artifacts" in text:
        return BackendUnavailableError(f"the compiler could not link its result: {text}")
    return LoweringError(f"the compiler refuses the program (a bug in fhelearn: please report it): {text}")

"""A compiled circuit: keys, encryption, evaluation, decryption."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from fhelearn.backends.concrete import forks, parallel, plan, timing
from fhelearn.backends.concrete.ciphertexts import Ciphertexts, Direction
from fhelearn.backends.concrete.compilation import Compiled, compile_cheapest, compile_text
from fhelearn.backends.concrete.cost import CostReport, read_cost
from fhelearn.backends.concrete.keys import (
    EvaluationKeys,
    Keys,
    new_key_id,
    parameter_fingerprint,
    require_evaluation_keys,
)
from fhelearn.backends.concrete.lowering import BATCH, SINGLE, LoweredProgram, lower, normalize
from fhelearn.backends.concrete.options import CircuitOptions
from fhelearn.backends.concrete.progress import progress_bar
from fhelearn.backends.concrete.server_process import (
    NativeError,
    Reply,
    ServerStoppedError,
    call,
    interruptible,
    server,
)
from fhelearn.exceptions import CiphertextError, KeysError, LoweringError
from fhelearn.ir import Program
from fhelearn.ir.reference import check_inputs
from fhelearn.typing import IntArray

_Encrypted: TypeAlias = tuple[plan.Piece, tuple[bytes, ...]]


def compile_program(program: Program, options: CircuitOptions | None = None) -> Circuit:
    """Compile an integer program for encrypted execution.

    Parameters
    ----------
    program : Program
        Verified, as every built or loaded program is.
    options : CircuitOptions, optional

    Returns
    -------
    Circuit
        Without keys: call :meth:`Circuit.keygen`, or set :attr:`Circuit.keys`.

    Raises
    ------
    BackendUnavailableError
        If concrete-python or the linker is missing.
    LoweringError
        If a node cannot be encrypted; names the node and the remedy.
    ParametersNotFoundError
        If no cryptographic parameters exist; names the widest node.
    """
    options = options or CircuitOptions()
    server()  # starts while the program is being lowered
    normal = normalize(program)
    lowered = lower(normal, 1, options.clear_inputs)
    batch_size = options.batch_size or plan.choose_batch_size(normal, lowered.num_lookups)
    if batch_size > 1:
        lowered = lower(normal, batch_size, options.clear_inputs)
    compiled = compile_cheapest(lowered, options)
    if program.has_calibrated_bounds and compiled.uses_residues:
        label, width = lowered.widest_region
        raise LoweringError(
            f"{label}: its {width} bits make the compiler encode values by residues, whose overflow wraps otherwise "
            "than on_overflow='wrap' says, and the program has calibrated bounds; round to 8 bits or fewer before "
            "lookups, or use proved bounds"
        )
    return Circuit(program, options, lowered, compiled)


class Circuit:
    """A program compiled for encrypted execution.

    Made by :func:`compile_program`; methods may be called from any thread.

    Attributes
    ----------
    program : Program
        As given.
    options : CircuitOptions
    mlir : str
        What was compiled.
    fingerprint : str
        SHA-256 (hex) of program, options, text and parameters: client and server must agree on it.
    parameters : str
        SHA-256 (hex) of the cryptographic parameters alone: keys fit circuits of equal parameters.
    cost : CostReport
    """

    def __init__(self, program: Program, options: CircuitOptions, lowered: LoweredProgram, compiled: Compiled) -> None:
        self.program = program
        self.options = options
        self._lowered = lowered
        self._compiled = compiled
        self.parameters = parameter_fingerprint(compiled.info)
        self._keys: Keys | None = None
        self._lock = forks.Lock()
        self._observed = timing.Observations()
        self._warm = ""  # the key set of the last run: the first run with others loads them

    def __repr__(self) -> str:
        return f"Circuit(fingerprint={self.fingerprint[:16]!r}..., lookups={self.cost.num_lookups})"

    @property
    def mlir(self) -> str:
        """The compiled text."""
        return self._lowered.mlir

    @property
    def batch_size(self) -> int:
        """Rows that one call of the batched function takes; 1 if there is none."""
        return self._lowered.batch_size

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of program, options, text and parameters."""
        content = [self.program.digest, self.options.as_dict(), self._compiled.identifier, self.parameters]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def cost(self) -> CostReport:
        """What a row costs, read back from the compiled program."""
        return read_cost(self._lowered, self._compiled)

    # -- keys ----------------------------------------------------------------------------------------------------------

    @property
    def keys(self) -> Keys | None:
        """The client's keys, or None. Setting keys of other parameters raises KeysError."""
        return self._keys

    @keys.setter
    def keys(self, keys: Keys | None) -> None:
        if keys is not None and not isinstance(keys, Keys):
            raise TypeError(f"keys must be Keys or None, got {type(keys).__name__}")
        if keys is not None:
            self._check_parameters(keys.parameters, "keys")
        self._keys = keys

    def keygen(self, force: bool = False, progress: bool = False) -> Keys:
        """Make fresh random keys, unless there are some.

        Parameters
        ----------
        force : bool, default=False
            Replace existing keys; what was encrypted under them cannot be decrypted any more.
        progress : bool, default=False
            Show a bar. It advances by an estimate: the library does not report how far it is.

        Returns
        -------
        Keys
        """
        with self._lock:
            if self._keys is None or force:
                self._keys = self._make_keys(progress)
            return self._keys

    def _make_keys(self, progress: bool = False) -> Keys:
        key_id = new_key_id()
        with progress_bar("key generation", self.cost.estimated_keygen_seconds(), "s", progress) as advance:

            def watch(pending: Future[Reply]) -> None:
                while progress and not pending.done():
                    started = time.perf_counter()
                    wait([pending], timeout=0.2)
                    advance(time.perf_counter() - started)

            _, (keyset, evaluation_keys) = call({"method": "keygen", "keys": key_id}, [self._compiled.info], watch)
        return Keys(self.parameters, key_id, keyset, evaluation_keys)

    def _check_parameters(self, parameters: str, what: str) -> None:
        if parameters != self.parameters:
            raise KeysError(
                f"the {what} were made for other cryptographic parameters ({parameters[:16]}...) than this circuit's "
                f"({self.parameters[:16]}...); generate keys for this circuit, or load the ones it was deployed with"
            )

    def _require_keys(self, what: str) -> Keys:
        if self._keys is None:
            raise KeysError(f"{what} needs keys: call keygen(), or set circuit.keys = Keys.load(path)")
        return self._keys

    # -- client: encrypt, decrypt --------------------------------------------------------------------------------------

    def encrypt(self, inputs: Sequence[IntArray]) -> Ciphertexts:
        """Encrypt rows.

        Parameters
        ----------
        inputs : sequence of int64 arrays, each (n, *shape of the input), n >= 0
            One per input of the program, inside its declared bounds. A program without inputs has one row.

        Raises
        ------
        InputRangeError
            If the count, a dtype, a shape or a value is wrong; names input, row, element, value and range.
        KeysError
            If there are no keys.
        """
        keys = self._require_keys("encrypt")
        rows = check_inputs(self.program, inputs)
        pieces = self._split(rows)
        client = keys.client(self._compiled.info)
        contents = tuple(content for _, content in self._encrypt_pieces(client, pieces, inputs))
        return Ciphertexts(self.fingerprint, keys.key_id, "input", tuple(pieces), contents)

    def decrypt(self, ciphertexts: Ciphertexts) -> list[IntArray]:
        """Decrypt the result of :meth:`run`.

        Returns
        -------
        list of int64 arrays, each (n, *shape of the output)

        Raises
        ------
        CiphertextError
            If they belong to another circuit or key set, or are inputs.
        KeysError
            If there are no keys.
        """
        keys = self._require_keys("decrypt")
        self._check_ciphertexts(ciphertexts, "output", keys.key_id)
        client = keys.client(self._compiled.info)
        pieces = zip(ciphertexts.pieces, ciphertexts.contents, strict=True)
        return self._concatenate([self._decrypt_piece(client, piece, content) for piece, content in pieces])

    def _concatenate(self, parts: Sequence[list[IntArray]]) -> list[IntArray]:
        """Outputs whose rows are in several parts, perhaps in none."""
        empty = [np.empty((0, *self.program.nodes[o].value.shape), dtype=np.int64) for o in self.program.outputs]
        return [np.concatenate(arrays) for arrays in zip(empty, *parts, strict=True)]

    def _split(self, rows: int) -> list[plan.Piece]:
        lookups = self._lowered.lookups_by_bit_width
        row, call = plan.row_milliseconds(self.program, lookups), plan.call_milliseconds(lookups)
        return plan.split_rows(rows, self.batch_size, row, call)

    def _encrypt_pieces(
        self, client: Any, pieces: Sequence[plan.Piece], inputs: Sequence[IntArray]
    ) -> Iterator[_Encrypted]:
        start = 0
        for piece in pieces:
            yield piece, self._encrypt_piece(client, piece, [x[start : start + piece.rows] for x in inputs])
            start += piece.rows

    def _encrypt_piece(self, client: Any, piece: plan.Piece, inputs: Sequence[IntArray]) -> tuple[bytes, ...]:
        missing = (self.batch_size if piece.batched else 1) - piece.rows
        contents = []
        for position, (index, x) in enumerate(zip(self.program.inputs, inputs, strict=True)):
            if missing:  # any row in range will do
                low, _ = self.program.nodes[index].value.bounds.to_int64()
                filler = np.broadcast_to(low, (missing, *x.shape[1:]))
                x = np.concatenate([x, filler])
            contents.append(client.encrypt(_function(piece), position, np.ascontiguousarray(x)))
        return tuple(contents)

    def _decrypt_piece(self, client: Any, piece: plan.Piece, content: tuple[bytes, ...]) -> list[IntArray]:
        try:
            decrypted = [client.decrypt(_function(piece), i, data) for i, data in enumerate(content)]
        except RuntimeError as error:
            raise CiphertextError(f"a ciphertext cannot be decrypted: {error}") from error
        chosen = zip(self._lowered.results, self._lowered.shifts, self.program.outputs, strict=True)
        return [
            decrypted[result].reshape(-1, *self.program.nodes[output].value.shape)[: piece.rows] << shift
            for result, shift, output in chosen
        ]

    # -- server: run ---------------------------------------------------------------------------------------------------

    def run(self, ciphertexts: Ciphertexts, evaluation_keys: EvaluationKeys | None = None) -> Ciphertexts:
        """Evaluate the program on encrypted rows.

        Parameters
        ----------
        ciphertexts : Ciphertexts
            From :meth:`encrypt` of a circuit with the same fingerprint.
        evaluation_keys : EvaluationKeys, optional
            Default: those of :attr:`keys`.

        Raises
        ------
        CiphertextError
            If they belong to another circuit or key set, or are outputs.
        KeysError
            If the evaluation keys are missing, or of other parameters.
        """
        if evaluation_keys is None:
            evaluation_keys = self._require_keys("run").evaluation_keys
        require_evaluation_keys(evaluation_keys)
        self._check_parameters(evaluation_keys.parameters, "evaluation keys")
        self._check_ciphertexts(ciphertexts, "input", evaluation_keys.key_id)
        started = zip(ciphertexts.pieces, ciphertexts.contents, strict=True)
        with interruptible():
            contents = tuple(content for _, content in self._evaluate(started, evaluation_keys))
        return Ciphertexts(self.fingerprint, ciphertexts.key_id, "output", ciphertexts.pieces, contents)

    def _evaluate(self, inputs: Iterable[_Encrypted], keys: EvaluationKeys) -> Iterator[_Encrypted]:
        """Results of pieces in order; draws the next input while the server process evaluates those before."""
        # decompressing inputs is serial, so two calls of a linear circuit overlap; lookups keep all cores busy alone
        depth = 1 if self._lowered.num_lookups else 2
        waiting: deque[tuple[Future[Reply], _Encrypted]] = deque()
        for piece, content in inputs:
            if len(waiting) >= depth:
                yield self._finish(*waiting.popleft(), keys)
            waiting.append((self._start(piece, content, keys), (piece, content)))
        while waiting:
            yield self._finish(*waiting.popleft(), keys)

    def _start(self, piece: plan.Piece, content: tuple[bytes, ...], keys: EvaluationKeys) -> Future[Reply]:
        header = {
            "method": "run",
            "program": self._compiled.identifier,
            "keys": keys.key_id,
            "functions": [_function(piece)],
            "arguments": len(content),
        }
        try:
            return server().submit(header, content)
        except ServerStoppedError:  # between the two calls
            return server().submit(header, content)

    def _finish(self, pending: Future[Reply], given: _Encrypted, keys: EvaluationKeys) -> _Encrypted:
        """The result of a started piece; gives the server process what it has not got (it may be a new one).

        The piece is started once more if somebody else's Ctrl-C stopped the process.
        """
        piece, content = given
        stopped = False
        while True:
            try:
                reply, results = pending.result()
            except NativeError as error:
                raise CiphertextError(f"the ciphertexts cannot be evaluated: {error}") from error
            except ServerStoppedError:
                if stopped:
                    raise
                stopped = True
            else:
                missing = reply.get("missing", ())
                if not missing:
                    return piece, tuple(results)
                if "program" in missing:
                    compile_text(self._lowered, self._compiled.settings)
                if "keys" in missing:
                    self._send_keys(keys)
            pending = self._start(piece, content, keys)

    def _send_keys(self, keys: EvaluationKeys) -> None:
        try:
            call({"method": "load_keys", "keys": keys.key_id}, [keys.content])
        except NativeError as error:
            raise KeysError(f"the evaluation keys cannot be read: {error}") from error

    def _check_ciphertexts(self, ciphertexts: Ciphertexts, direction: Direction, key_id: str) -> None:
        if not isinstance(ciphertexts, Ciphertexts):
            raise TypeError(f"ciphertexts must be Ciphertexts, got {type(ciphertexts).__name__}")
        if ciphertexts.circuit != self.fingerprint:
            raise CiphertextError(
                f"the ciphertexts belong to circuit {ciphertexts.circuit[:16]}..., this one is "
                f"{self.fingerprint[:16]}...; client and server must compile the same program with the same options"
            )
        if ciphertexts.direction != direction:
            raise CiphertextError(f"these are {ciphertexts.direction} ciphertexts, {direction} ciphertexts are needed")
        if ciphertexts.key_id != key_id:
            raise CiphertextError(
                f"the ciphertexts were encrypted under key set {ciphertexts.key_id}, the keys at hand are {key_id}; "
                "load the key set they were made with"
            )
        parts = len(self.program.inputs) if direction == "input" else len(set(self._lowered.results))
        for piece, content in zip(ciphertexts.pieces, ciphertexts.contents, strict=True):
            if piece.rows > (self.batch_size if piece.batched else 1) or len(content) != parts:
                raise CiphertextError("the ciphertexts' pieces do not fit this circuit")

    # -- both ----------------------------------------------------------------------------------------------------------

    def execute(self, inputs: Sequence[IntArray], n_jobs: int | None = None, progress: bool = False) -> list[IntArray]:
        """Encrypt, evaluate and decrypt rows; makes keys if there are none.

        Parameters
        ----------
        inputs : sequence of int64 arrays, each (n, *shape of the input), n >= 0
        n_jobs : int, optional
            Workers, as joblib counts them; they get the program, evaluation keys and ciphertexts, never a secret.
            Default: this machine alone, whose cores one call uses already.
        progress : bool, default=False
            Show bars for rows and for key generation.

        Returns
        -------
        list of int64 arrays, each (n, *shape of the output)

        Raises
        ------
        InputRangeError
            As :meth:`encrypt`.
        ValueError
            If joblib's fork-based back end ``multiprocessing`` is active.
        """
        rows = check_inputs(self.program, inputs)
        workers = parallel.count_workers(n_jobs)
        keys = self.keygen(progress=progress)
        if workers > 1 and rows > 1:
            return self.decrypt(parallel.run(self, self.encrypt(inputs), keys.evaluation_keys, workers, progress))
        with progress_bar("encrypted rows", rows, "row", progress and rows > 1) as advance:
            return self._pipeline(inputs, keys, self._split(rows), advance)

    def _pipeline(
        self, inputs: Sequence[IntArray], keys: Keys, pieces: list[plan.Piece], advance: Any
    ) -> list[IntArray]:
        """Encrypt a piece while the server process evaluates those before; note how long each takes."""
        cold, self._warm = self._warm != keys.key_id, keys.key_id
        decrypted = []
        started = time.perf_counter()
        with interruptible():
            client = keys.client(self._compiled.info)
            encrypted = self._encrypt_pieces(client, pieces, inputs)
            for position, (piece, content) in enumerate(self._evaluate(encrypted, keys.evaluation_keys)):
                decrypted.append(self._decrypt_piece(client, piece, content))
                advance(piece.rows)
                finished = time.perf_counter()
                if position or not cold:
                    self._observed.add(piece.batched, position == 0, finished - started)
                started = finished
        return self._concatenate(decrypted)

    def estimate_seconds(self, rows: int = 1) -> float:
        """Seconds that :meth:`execute` will take on this machine for `rows` >= 0 rows, keys at hand.

        From the circuit's own past runs, if they had calls of the kinds that these rows take (whole batches, single
        rows); else a linear circuit is run on a few rows, and a circuit with lookups is priced by a short measurement
        of a small one, once per process (see :mod:`.timing`).
        """
        if rows < 0:
            raise ValueError(f"rows must be >= 0, got {rows}")
        pieces = self._split(rows)
        seconds = self._observed.estimate(pieces)
        if seconds is None and not self._lowered.num_lookups:
            self._measure()
            seconds = self._observed.estimate(pieces)
        if seconds is not None:
            return seconds
        return timing.estimate(self.cost.complexity, pieces, self.batch_size, self.program)

    def _measure(self) -> None:
        """Run a circuit without lookups on batches and on rows, with keys of its own, which take milliseconds."""
        keys = self._make_keys()
        values = [self.program.nodes[i].value for i in self.program.inputs]
        kinds = [plan.Piece(1, False)]
        if self.batch_size > 1:
            kinds.append(plan.Piece(self.batch_size, True))
        for kind in kinds * 2:  # the first run with these keys loads them, and counts its later calls only
            pieces = [kind] * (3 if values else 1)
            rows = sum(piece.rows for piece in pieces)
            inputs = [np.broadcast_to(v.bounds.to_int64()[0], (rows, *v.shape)).copy() for v in values]
            self._pipeline(inputs, keys, pieces, lambda rows: None)


def _function(piece: plan.Piece) -> str:
    return BATCH if piece.batched else SINGLE

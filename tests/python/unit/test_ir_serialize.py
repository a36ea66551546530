"""The file format: one program, one file; nothing else is accepted."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fhelearn.exceptions import ProgramFormatError
from fhelearn.ir import OPS, DeclaredBounds, Program, ProgramBuilder, evaluate, from_bytes, to_bytes
from fhelearn.testing import random_program


@pytest.fixture
def program() -> Program:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(3,), lo=np.array([0, 1, 2]), hi=np.array([3, 4, 5]), name="features")
    declared = DeclaredBounds([-1, 0], [5, 6], "calibrated", "seen on 10 rows")
    y = builder.emit("matmul", x, weights=np.array([[1, -1], [1, 1], [1, 1]]), declared=declared)
    return builder.build(builder.emit("table_lookup", y, lo=-1, table=np.arange(8)))


def rezip(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return buffer.getvalue()


def unzip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def signed(entries: dict[str, bytes]) -> bytes:
    """The file of an attacker who knows the format and writes a right checksum."""
    from fhelearn.ir.serialize import _digest

    rest = {name: data for name, data in entries.items() if name != "sha256"}
    return rezip({**rest, "sha256": _digest(rest).encode()})


def test_saving_loading_and_saving_again_gives_identical_bytes() -> None:
    for seed in range(200):
        program = random_program(np.random.default_rng(seed), calibrated=seed % 2 == 0)
        data = to_bytes(program)
        loaded = from_bytes(data)
        assert to_bytes(loaded) == data
        assert loaded == program
        assert str(loaded) == str(program)


def test_the_digest_is_the_checksum_in_the_file(program: Program) -> None:
    assert unzip(to_bytes(program))["sha256"].decode() == program.digest


def test_ten_thousand_mutated_files_are_refused_and_none_crashes() -> None:
    """Flipped bits, cuts, insertions, overwritten and swapped pieces of 20 files, whatever the seed draws."""
    rng = np.random.default_rng(7)
    files = [to_bytes(random_program(rng, calibrated=bool(i % 2))) for i in range(20)]
    for trial in range(10_000):
        data = bytearray(files[trial % len(files)])
        original = bytes(data)
        where = int(rng.integers(len(data)))
        kind = trial % 5
        if kind == 0:
            data[where] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[where:]
        elif kind == 2:
            data[where:where] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 3:
            data[where : where + 8] = rng.bytes(len(data[where : where + 8]))
        else:
            other = int(rng.integers(len(data)))
            data[where], data[other] = data[other], data[where]
        if bytes(data) == original:  # two equal bytes swapped, or bytes drawn anew: flip a bit instead
            data[where] ^= 1
        with pytest.raises(ProgramFormatError, match=r"^program file: "):
            from_bytes(bytes(data))


def random_edit(value: Any, rng: np.random.Generator) -> Any:
    """A JSON document with one random place replaced by something unexpected."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[int(rng.integers(len(keys)))]
        edited = dict(value) if isinstance(value, dict) else list(value)
        edited[key] = random_edit(value[key], rng)
        return edited
    odd = [
        None,
        True,
        -1,
        2**64,
        10**30,
        "",
        "input",
        [],
        {},
        [[0]],
        {"tensor": "x"},
        [2**40, 2**40],
        1.5,
        [-1],
        "multiply",
    ]
    return odd[int(rng.integers(len(odd)))]


def test_hostile_documents_with_right_checksums_are_refused_or_mean_what_they_say() -> None:
    """Whoever can write a checksum can write any program; the reader must then read exactly that one, or refuse."""
    rng = np.random.default_rng(8)
    files = [unzip(to_bytes(random_program(rng, calibrated=bool(i % 2)))) for i in range(20)]
    refused = 0
    for trial in range(3000):
        entries = dict(files[trial % len(files)])
        document = random_edit(json.loads(entries["program.json"]), rng)
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        data = signed({**entries, "program.json": text.encode()})
        try:
            loaded = from_bytes(data)
        except ProgramFormatError:
            refused += 1
        else:
            assert to_bytes(loaded) == data
    assert refused > 2000


@pytest.mark.parametrize("data", [b"", b"PK", b"\0" * 100, b"PK\x05\x06" + b"\0" * 18])
def test_bytes_that_are_no_program_file_are_refused(data: bytes) -> None:
    with pytest.raises(ProgramFormatError):
        from_bytes(data)


def edited(program: Program, **changes: Any) -> bytes:
    entries = unzip(to_bytes(program))
    document = {**json.loads(entries["program.json"]), **changes}
    return signed({**entries, "program.json": json.dumps(document, sort_keys=True, separators=(",", ":")).encode()})


def test_errors_say_what_is_wrong(program: Program) -> None:
    good = to_bytes(program)
    entries = unzip(good)
    tensor = next(name for name in entries if name.endswith("weights.npy"))
    bomb = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    bomb += b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    cases = {
        "version 2, this library reads 1; upgrade": edited(program, format_version=2),
        "field 'format_version' must be int, got bool": edited(program, format_version=True),
        "field 'nodes' must be list": edited(program, nodes=3),
        "at least one output": edited(program, outputs=[]),
        "not in canonical form": edited(program, comment="hello"),
        "stored without compression": rezip(entries, zipfile.ZIP_DEFLATED),
        "SHA-256 does not match": rezip({**entries, tensor: entries[tensor][:-1] + b"\7"}),
        "is missing": signed({k: v for k, v in entries.items() if k != tensor}),
        "does not fit": signed({**entries, tensor: bomb}),
        "is malformed": signed({**entries, tensor: pickled.getvalue()}),
        "is not JSON": signed({**entries, "program.json": b"[" * 100_000}),
    }
    for message, data in cases.items():
        with pytest.raises(ProgramFormatError, match=message):
            from_bytes(data)


def test_nested_entries_are_refused_before_they_are_read() -> None:
    """Many directory records of one stored entry would make a small file read as gigabytes."""
    data = to_bytes(random_program(np.random.default_rng(0)))
    end = data.rindex(b"PK\x05\x06")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    directory, count = data[start:end], 50
    names = [directory.replace(b"program.json", b"%012d" % i) for i in range(count)]
    records = int.from_bytes(data[end + 10 : end + 12], "little") * count
    sizes = records.to_bytes(2, "little") * 2 + sum(map(len, names)).to_bytes(4, "little") + start.to_bytes(4, "little")
    bomb = data[:start] + b"".join(names) + b"PK\x05\x06" + bytes(4) + sizes + bytes(2)
    with pytest.raises(ProgramFormatError, match="overlap"):
        from_bytes(bomb)


@pytest.mark.parametrize("kernel", [2, 256])
def test_small_files_do_not_take_long_to_verify(kernel: int) -> None:
    """Window sums cost the height plus the width of the window, and uniform bounds one element (found by review)."""
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(1, 512, 512), lo=0, hi=np.int64(3))
    pooled = builder.emit("sum_pool2d", x, kernel=(kernel, kernel), strides=(1, 1))
    program = builder.build(pooled)
    assert program.nodes[pooled].value.bounds.lo.ndim == 0
    assert from_bytes(to_bytes(program)) == program


def test_tensors_of_hostile_content_are_refused_or_mean_what_they_say() -> None:
    rng = np.random.default_rng(9)
    files = [unzip(to_bytes(random_program(rng, calibrated=bool(i % 2)))) for i in range(20)]
    files = [entries for entries in files if any(name.endswith(".npy") for name in entries)]
    for trial in range(1000):
        entries = dict(files[trial % len(files)])
        name = str(rng.choice([name for name in entries if name.endswith(".npy")]))
        content = bytearray(entries[name])
        content[int(rng.integers(len(content)))] = int(rng.integers(256))
        data = signed({**entries, name: bytes(content)})
        try:
            assert to_bytes(from_bytes(data)) == data
        except ProgramFormatError as error:
            assert str(error).startswith("program file: ")  # noqa: PT017


def test_hidden_entries_are_refused(program: Program) -> None:
    entries = unzip(to_bytes(program))
    with pytest.raises(ProgramFormatError, match="canonical"):
        from_bytes(signed({**entries, "extra.txt": b"hidden"}))
    with pytest.raises(ProgramFormatError):
        from_bytes(to_bytes(program) + b"trailing")


GOLDEN = sorted((Path(__file__).parents[2] / "data" / "programs").glob("*.program"))


@pytest.mark.parametrize("path", GOLDEN, ids=[path.stem for path in GOLDEN])
def test_files_of_earlier_releases_are_read_and_mean_the_same(path: Path) -> None:
    """Each golden file stands beside its text form and its answers on fixed rows, all written by release 0.1.0."""
    program = from_bytes(path.read_bytes())
    expected = json.loads(path.with_suffix(".json").read_text())
    assert str(program).splitlines() == expected["text"]
    inputs = [np.array(rows, dtype=np.int64) for rows in expected["inputs"]]
    assert [output.tolist() for output in evaluate(program, inputs)] == expected["outputs"]


def test_there_are_golden_files_for_every_op() -> None:
    programs = [from_bytes(path.read_bytes()) for path in GOLDEN]
    assert {node.op for program in programs for node in program.nodes} == set(OPS)

"""The HDF5 store: streaming gives the same file and digest as one write, and every kind of bad file is refused by name."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ddis.data import store
from ddis.data.hdf5 import arrays_digest, read_attributes
from ddis.data.store import PAIRS, open_pairs, pairs_writer, read_pairs, write_pairs
from ddis.errors import DamagedError, InputError

COUNT, SIZE = 37, 12


@pytest.fixture
def fields() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((2, COUNT, SIZE, SIZE)).astype(np.float32))


@pytest.fixture
def path(tmp_path: Path, fields: tuple[np.ndarray, np.ndarray]) -> Path:
    write_pairs(tmp_path / "pairs.h5", *fields, {"pde": "poisson", "parameters": {"tau": 3.0}, "seed": None})
    return tmp_path / "pairs.h5"


def damage(path: Path, name: str, change) -> None:
    with h5py.File(path, "r+") as file:
        change(file[name])


@pytest.mark.parametrize("block", [1, 5, COUNT])
def test_digest_and_bytes_do_not_depend_on_blocks(tmp_path, path, fields, block):
    a, u = fields
    attributes = {"pde": "poisson", "parameters": {"tau": 3.0}, "seed": None}
    with pairs_writer(tmp_path / "blocks.h5", COUNT, SIZE, attributes) as writer:
        for start in range(0, COUNT, block):
            writer.append(a[start : start + block], u[start : start + block])
    assert writer.digest == arrays_digest({"coefficient": a, "solution": u}) == read_attributes(path, PAIRS)["digest"]
    assert (tmp_path / "blocks.h5").read_bytes() == path.read_bytes()


def test_the_definition_of_the_digest(fields):
    """Files that were written before must keep theirs: name, shape, type, then the values in C order."""
    content = b"".join(
        name + b"(37, 12, 12)float32" + array.tobytes() for name, array in zip((b"coefficient", b"solution"), fields, strict=True)
    )
    assert arrays_digest(dict(zip(("solution", "coefficient"), fields[::-1], strict=True))) == hashlib.sha256(content).hexdigest()


def test_read_back(path, fields):
    pairs = read_pairs(path, SIZE, COUNT)
    assert np.array_equal(pairs.coefficient, fields[0]) and np.array_equal(pairs.solution, fields[1])
    assert pairs.attributes["parameters"] == {"tau": 3.0} and pairs.attributes["seed"] is None


def test_parts_are_read_alone_and_in_order(path, fields):
    with open_pairs(path, SIZE) as pairs:
        assert (pairs.count, pairs.shapes) == (COUNT, ((SIZE, SIZE),) * 2)
        part = pairs.read([30, 2, 30])
        assert np.array_equal(part.coefficient, fields[0][[30, 2, 30]]) and np.array_equal(part.solution, fields[1][[30, 2, 30]])
        assert np.array_equal(np.concatenate([u for _, u in pairs.blocks(np.arange(20))]), fields[1][:20])
        pairs.verify()


@pytest.mark.parametrize("rows", [[0], [3, 4, 17, COUNT - 1], list(range(COUNT))])
def test_some_fields_are_read_block_by_block(path, fields, rows, monkeypatch):
    monkeypatch.setattr(store, "BLOCK_BYTES", 4 * SIZE**2 * 5)  # five fields
    with open_pairs(path, SIZE) as pairs:
        blocks = [a for (a,) in pairs.blocks(np.array(rows), ["coefficient"])]
    assert max(map(len, blocks)) <= 5
    assert np.array_equal(np.concatenate(blocks), fields[0][rows])


def test_a_single_field_costs_little(tmp_path):
    """Its HDF5 chunk holds few others, whatever the number of fields."""
    write_pairs(tmp_path / "large.h5", np.zeros((40, 128, 128)), np.zeros((40, 128, 128)), {})
    with h5py.File(tmp_path / "large.h5") as file:
        assert np.prod(file["coefficient"].chunks) * 4 <= 1 << 16


def test_unfinished_writes_leave_nothing(tmp_path, fields):
    a, u = fields
    with pytest.raises(ValueError, match="5 of 37"), pairs_writer(tmp_path / "x.h5", COUNT, SIZE, {}) as writer:
        writer.append(a[:5], u[:5])
    with pytest.raises(KeyboardInterrupt), pairs_writer(tmp_path / "x.h5", COUNT, SIZE, {}):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="does not fit"), pairs_writer(tmp_path / "x.h5", 4, SIZE, {}) as writer:
        writer.append(a[:5], u[:5])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_non_finite_fields_are_not_written(tmp_path, fields, value):
    u = fields[1].astype(np.float64)
    u[3, 4, 5] = value
    with pytest.raises(InputError, match=r"solution for .*x\.h5 has NaN or infinite"):
        write_pairs(tmp_path / "x.h5", fields[0], u, {})
    assert list(tmp_path.iterdir()) == []


def test_truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    for read in (read_pairs, lambda p: open_pairs(p).__enter__()):
        with pytest.raises(DamagedError, match=rf"{re.escape(str(path))} is truncated: it has \d+ bytes, and \d+ by its"):
            read(path)


def test_missing_and_foreign(tmp_path, path):
    with pytest.raises(InputError, match=r"none\.h5 does not exist"):
        read_pairs(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(InputError, match=r"text\.h5 is not an HDF5 file: the signature"):
        read_pairs(tmp_path / "text.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["coefficient"] = np.zeros((2, 4, 4))
    with pytest.raises(InputError, match=r"foreign\.h5 is not a ddis-pairs file of version 1"):
        read_pairs(tmp_path / "foreign.h5")
    with h5py.File(path, "r+") as file:
        del file["solution"]
    with pytest.raises(InputError, match="has no solution; it holds coefficient"):
        read_pairs(path)


def test_other_resolution_and_too_few(path):
    with pytest.raises(InputError, match=r"pairs\.h5 has 12 x 12 nodes, the study 16 x 16; set data\.resolution"):
        read_pairs(path, 16)
    with pytest.raises(InputError, match="holds 37 fields, 38 are needed"):
        read_pairs(path, SIZE, 38)


def test_nan_in_a_file(path):
    damage(path, "solution", lambda data: data.__setitem__((5, 1, 1), np.nan))
    with h5py.File(path, "r+") as file:
        file.attrs["digest"] = arrays_digest({name: file[name] for name in ("coefficient", "solution")})
    with pytest.raises(InputError, match=r"pairs\.h5 holds NaN or infinite values in solution"):
        read_pairs(path)
    with open_pairs(path) as pairs:
        pairs.read([4])
        with pytest.raises(InputError, match="holds NaN"):
            pairs.read([5])


def test_changed_values(path):
    damage(path, "coefficient", lambda data: data.__setitem__((7, 0, 0), 0.5))
    with pytest.raises(InputError, match=r"pairs\.h5 is damaged: its arrays do not match their digest"):
        read_pairs(path)
    with open_pairs(path) as pairs, pytest.raises(InputError, match="damaged"):
        pairs.verify()


def test_flipped_bits_are_found_in_parts_too(path, fields):
    content = bytearray(path.read_bytes())
    at = content.find(fields[1][20].tobytes())
    assert at > 0
    content[at + 3] ^= 1
    path.write_bytes(content)
    with open_pairs(path) as pairs, pytest.raises(DamagedError, match=r"pairs\.h5 is damaged: a checksum"):
        pairs.read([20])


def test_full_disk(tmp_path):
    """A limit on the size of files stands in for a full disk: one line, and nothing is left."""
    program = (
        "import resource, numpy as np\n"
        "from ddis.data.store import write_pairs\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "from ddis.errors import DamagedError, InputError\n"
        "try:\n    write_pairs('x.h5', np.ones((40, 128, 128)), np.ones((40, 128, 128)), {})\n"
        "except InputError as error:\n    print('refused:', error)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("refused: cannot write x.h5"), done.stdout + done.stderr
    assert done.returncode == 0, "HDF5 crashes at the end of a process whose file it could not write"
    assert list(tmp_path.iterdir()) == []

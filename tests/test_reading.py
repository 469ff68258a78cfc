"""Files that cannot be read: the system's own reason, damage only where the bytes prove it, and no advice that could destroy."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from recorded import fill, finished, make

from ddis.config import Study
from ddis.data.hdf5 import read_attributes
from ddis.data.store import PAIRS, Samples, read_pairs, read_samples, write_pairs, write_samples
from ddis.errors import DamagedError, InputError
from ddis.models.checkpoint import load_tensors, load_unfinished, save_tensors
from ddis.reading import cannot_read, hdf5_damage, matlab_damage, safetensors_damage, system_reason
from ddis.stages import records, verify

FIELD = np.ones((2, 4, 4), np.float32)


def write(path: Path) -> Path:
    """A small file of the kind that the name says."""
    if path.name == "samples.h5":
        moments = dict.fromkeys(("mean", "std", "coefficient_true", "solution_true", "observation"), FIELD)
        write_samples(path, Samples(coefficient=FIELD[:, None], mask=FIELD > 0, **moments))
    elif path.suffix == ".h5":
        write_pairs(path, FIELD, FIELD, {})
    else:
        save_tensors(path, {"w": torch.ones(30)}, {"a": 1})
    return path


READERS = {"pairs.h5": read_pairs, "samples.h5": read_samples, "weights.safetensors": load_tensors}


def refusal(read: Callable, path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text and "delete" not in text and path.name in text
    return text


@contextmanager
def open_elsewhere(path: Path) -> Iterator[None]:
    """The lock that another program holds which has opened an HDF5 file to write."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("name", ["pairs.h5", "samples.h5"])
def test_a_file_that_is_open_in_another_program_is_not_called_damaged(tmp_path, name):
    path = write(tmp_path / name)
    with open_elsewhere(path):
        text = refusal(READERS[name], path)
    assert "cannot be read: Resource temporarily unavailable (another program has it open; close it there" in text
    assert "truncated" not in text
    READERS[name](path)


@pytest.mark.parametrize("name", list(READERS))
def test_what_the_system_says_is_told(tmp_path, monkeypatch, name):
    assert "cannot be read: Is a directory" in refusal(READERS[name], (tmp_path / "folder" / name).parent.parent)
    (tmp_path / "folder").mkdir()
    assert "does not exist; run the" in refusal(READERS[name], tmp_path / name)

    def fail(number: int) -> Callable:
        def call(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        return call

    path = write(tmp_path / name)
    for number in (errno.EACCES, errno.EMFILE, errno.EIO, errno.ESTALE):
        with monkeypatch.context() as patch:
            patch.setattr(h5py, "File", fail(number))
            patch.setattr("ddis.models.checkpoint.safe_open", fail(number))
            text = refusal(READERS[name], path)
        assert f"{name} cannot be read: {os.strerror(number)}" in text and "truncated" not in text


def test_the_number_that_hdf5_hides_in_its_text_is_found():
    text = (
        "Can't read data (file read failed: time = Mon\n, filename = 'x.h5', errno = 116, error message = 'Stale file handle', b)"
    )
    assert system_reason(OSError(text)).startswith("Stale file handle (the network disk")
    assert system_reason(OSError("truncated file: eof = 96")) is None
    error = cannot_read(Path("x.h5"), RuntimeError("wrong\n B-tree signature"), lambda path: None)
    assert str(error) == "x.h5 cannot be read: wrong B-tree signature" and not isinstance(error, DamagedError)


@pytest.mark.parametrize("name", list(READERS))
def test_a_truncated_file_is_damage_wherever_it_ends(tmp_path, name):
    path = write(tmp_path / name)
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 9, 30, 95, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedError) as caught:
            READERS[name](path)
        text = str(caught.value)
        assert ("is empty" if size == 0 else "is truncated" if size > 8 else "is ") in text and "delete" not in text
        assert "restore it or make it again" in text
    path.write_bytes(whole)
    READERS[name](path)


@pytest.mark.parametrize("options", [{"libver": "earliest"}, {"libver": "latest"}, {"userblock_size": 1024}])
def test_the_end_of_every_version_of_hdf5_is_known(tmp_path, options):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", **options) as file:
        file["a"] = FIELD
    assert hdf5_damage(path) is None
    os.truncate(path, path.stat().st_size - 1)
    assert "is truncated: it has" in hdf5_damage(path)


@pytest.mark.parametrize(("place", "value"), [(128 + 17, 255), (128 + 72, 26), (128 + 5, 1)])
def test_arrays_of_matlab_on_which_its_reader_crashes_are_damage(tmp_path, place, value):
    """The flags (complex, without imaginary values), the type of the values, the length of the array."""
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"first_array": np.ones((3, 6, 6)), "second": np.array([1 + 2j]), "text": "a", "cell": [1, "x"]})
    assert matlab_damage(path) is None
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)
    assert "is " in (matlab_damage(path) or "")


def test_safetensors_of_others_are_no_damage(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(3)}, tmp_path / "foreign.safetensors")
    assert safetensors_damage(tmp_path / "foreign.safetensors") is None
    with pytest.raises(InputError, match="is a safetensors file, but not a checkpoint of ddis") as caught:
        load_tensors(tmp_path / "foreign.safetensors")
    assert not isinstance(caught.value, DamagedError)


def test_unfinished_work_that_is_damaged_is_told_to_be_removed(tmp_path):
    path = write(tmp_path / "work.safetensors")
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(DamagedError, match=r"is truncated: .*; remove it and run the same command again$"):
        load_unfinished(path)


def test_arrays_larger_than_their_file_are_damage_before_memory_is_asked_for(tmp_path):
    path = write(tmp_path / "pairs.h5")
    with h5py.File(path, "r+") as file:
        del file["solution"]
        file.create_dataset("solution", (1 << 20, 1 << 12, 1 << 12), np.float32, chunks=(1, 64, 64))
    with pytest.raises(DamagedError, match="it holds only a part of solution"):
        read_pairs(path)


@pytest.mark.parametrize("value", ["text", np.array([b"a", b"b"]), h5py.Empty("f"), 3.0])
def test_arrays_of_another_type_are_refused(tmp_path, value):
    for name in ("pairs.h5", "samples.h5"):
        path = write(tmp_path / name)
        with h5py.File(path, "r+") as file:
            del file["coefficient"]
            file["coefficient"] = value
        refusal(READERS[name], path)


# `ddis verify`


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    """The tiny study, finished."""
    monkeypatch.chdir(tmp_path)
    return finished()


def verified(study: Study, capsys: pytest.CaptureFixture) -> tuple[list[str], str]:
    """Lines of `ddis verify`, and those of them that repair."""
    verify.run(study.study)
    lines = capsys.readouterr().out.splitlines()
    return lines, "\n".join(line for line in lines if line.startswith("repair"))


def test_a_good_file_that_another_program_has_open_is_not_to_be_removed(study, capsys):
    path = study.folder / "data" / "poisson" / "train.h5"
    with open_elsewhere(path):
        lines, repair = verified(study, capsys)
        assert lines[-1].endswith("all is well") and not repair  # its bytes are the recorded ones
        fill(path, 99)
    with open_elsewhere(path):
        lines, repair = verified(study, capsys)
    assert lines[0].startswith("unreadable data/poisson/train.h5: Resource temporarily unavailable (another program has it open")
    assert not repair


def test_a_file_that_the_system_does_not_give_is_unreadable(study, capsys, monkeypatch):
    digest = verify.file_digest

    def fail(path: Path) -> str:
        if path.name == "train.h5":
            raise PermissionError(errno.EACCES, "Permission denied")
        return digest(path)

    monkeypatch.setattr(verify, "file_digest", fail)
    lines, repair = verified(study, capsys)
    assert lines[0] == "unreadable data/poisson/train.h5: Permission denied" and not repair


def test_only_damage_of_recorded_files_is_to_be_removed(study, capsys):
    """A stale file, one without a record, and another program's HDF5 file in the place of ours stay."""
    data, tables = study.folder / "data" / "poisson", study.folder / "tables"
    with h5py.File(data / "test.h5", "w") as file:
        file["mine"] = FIELD
    os.truncate(data / "train.h5", 100)
    os.truncate(tables / "errors.csv", 2)
    (study.folder / "provenance" / "tables.json").unlink()
    make(study, records.Step("train", {"problem": "poisson", "model": "operator-10"}), 99)
    lines, repair = verified(study, capsys)
    kinds = {line.split()[1].rstrip(":"): line.split()[0] for line in lines[:-2]}
    assert kinds["data/poisson/test.h5"] == "unknown" and kinds["data/poisson/train.h5"] == "damaged"
    assert kinds["samples/poisson/sparse/ddis-10.h5"] == "stale"
    remove, _, command = repair.partition("; ")
    assert remove == "repair:  rm results/tiny/data/poisson/train.h5"
    assert command.startswith("snakemake --cores all --configfile results/tiny/config.yaml --forcerun ")
    assert (
        "results/tiny/samples/poisson/sparse/ddis-10.h5" in command and "test.h5" not in command and "errors.csv" not in command
    )


def test_a_record_or_a_folder_that_cannot_be_read_makes_no_file_unknown(study, monkeypatch):
    path = study.folder / "provenance" / "tables.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"provenance/tables\.json cannot be read: Is a directory"):
        verify.verify(study, study.folder)
    with pytest.raises(InputError, match="nowhere cannot be read: No such file or directory"):
        verify.files_in(study.folder / "nowhere")


def test_the_attributes_of_a_file_that_is_not_ours_are_no_damage(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["format"] = np.arange(3)
    with pytest.raises(InputError, match="is not a ddis-pairs file of version 1") as caught:
        read_attributes(tmp_path / "x.h5", PAIRS)
    assert not isinstance(caught.value, DamagedError)

"""`ddis import`: files laid out like the public ones give the fields that were put in; every bad input is one clear error."""

import fcntl
import gzip
import os
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from ddis.cli import main
from ddis.data.axes import advice
from ddis.data.hdf5 import read_attributes
from ddis.data.residual import relative_residual, rounding_residual
from ddis.data.store import PAIRS, read_pairs, write_pairs
from ddis.pde import make_problem

COUNT, SIZE = 10, 16
KEYS = {
    "poisson": ("f_data", "phi_data"),
    "helmholtz": ("f_data", "psi_data"),
    "darcy": ("thresh_a_data", "thresh_p_data"),
    "navier-stokes": ("a", "u"),
}


def solved(pde: str, count: int = COUNT, size: int = SIZE, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    problem = make_problem(pde, {})
    a = problem.sample_coefficients(range(count), size, 0)
    return a.numpy().astype(dtype), problem.solve(a).numpy().astype(dtype)


def public(pde: str, a: np.ndarray, u: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a public file."""
    if pde != "navier-stokes":
        return dict(zip(KEYS[pde], (a, u), strict=True))
    snapshots = np.stack([u * (k / 10) ** 2 for k in range(1, 11)], axis=-1)
    return {"a": a, "u": snapshots, "t": np.linspace(0.1, 1, 10)[None]}


def save_v5(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    scipy.io.savemat(path, arrays)
    return path


def save_v73(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """As MATLAB's `save -v7.3` does: HDF5 behind a header of 512 bytes, axes in reverse, the class as an attribute."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            data = file.create_dataset(name, data=array.T)
            data.attrs["MATLAB_class"] = np.bytes_("single" if array.dtype == np.float32 else "double")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan 01 00:00:00 2024 HDF5 schema 1.00 .".ljust(124)
    with path.open("r+b") as file:
        file.write(header + b"\x00\x02IM")
    return path


SPACES = {
    "burgers": ("burgers", {"time": 0.25}),
    "source": ("darcy-source", {}),
    "corner": ("poisson-l-shape", {}),
    "channel": ("poisson", {"aspect": 3.0}),
}


def of_space(name: str, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    pde, parameters = SPACES[name]
    problem = make_problem(pde, parameters)
    a = problem.sample_coefficients(range(count), SIZE, 1)
    return a.numpy().astype(np.float32), problem.solve(a).numpy().astype(np.float32)


def given(name: str) -> list[str]:
    pde, parameters = SPACES[name]
    return ["--pde", pde, *(word for key, value in parameters.items() for word in ("--set", f"{key}={value}"))]


def run(tmp_path: Path, pde: str, *arguments: object) -> int:
    return main(["import", "--pde", pde, "--output", str(tmp_path / "out" / "pairs.h5"), *map(str, arguments)])


def refused(tmp_path: Path, capsys: pytest.CaptureFixture, pde: str, *arguments: object) -> str:
    """The one line of a refusal, which leaves no file."""
    assert run(tmp_path, pde, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error, error
    assert not list(tmp_path.glob("out/*")) and not list(tmp_path.glob("out/.*"))
    return error


@pytest.mark.parametrize("save", [save_v5, save_v73])
@pytest.mark.parametrize("pde", list(KEYS))
def test_public_layouts(tmp_path, pde, save, caplog):
    a, u = solved(pde)
    files = [save(tmp_path / f"{i}.mat", public(pde, a[part], u[part])) for i, part in enumerate((slice(0, 6), slice(6, 10)))]
    assert run(tmp_path, pde, *files) == 0
    pairs = read_pairs(tmp_path / "out/pairs.h5", SIZE, COUNT)
    assert np.array_equal(pairs.coefficient, a) and np.array_equal(pairs.solution, u)
    assert pairs.attributes["warnings"] == [] and not [r for r in caplog.records if r.levelname == "WARNING"]
    assert [item["file"] for item in pairs.attributes["source"]["files"]] == list(map(str, files))
    assert 0 < pairs.attributes["residual"] < 1e-4


def test_double_precision_and_the_order_of_bytes(tmp_path):
    a, u = solved("poisson", dtype=np.float64)
    assert run(tmp_path, "poisson", save_v5(tmp_path / "x.mat", public("poisson", a.astype(">f8"), u))) == 0
    pairs = read_pairs(tmp_path / "out/pairs.h5")
    assert np.array_equal(pairs.coefficient, a.astype(np.float32)) and pairs.attributes["residual"] < 1e-12


def save_npy(folder: Path, a: np.ndarray, u: np.ndarray) -> list[Path]:
    np.save(folder / "coefficient.npy", a)
    np.save(folder / "solution.npy", u)
    return [folder / "coefficient.npy", folder / "solution.npy"]


def save_npz(folder: Path, a: np.ndarray, u: np.ndarray) -> list[Path]:
    np.savez(folder / "pairs.npz", coefficient=a, solution=u)
    return [folder / "pairs.npz"]


def save_plain_hdf5(folder: Path, a: np.ndarray, u: np.ndarray) -> list[Path]:
    with h5py.File(folder / "pairs.hdf5", "w") as file:
        file["coefficient"], file["solution"] = a, u
    return [folder / "pairs.hdf5"]


def save_own(folder: Path, a: np.ndarray, u: np.ndarray) -> list[Path]:
    write_pairs(folder / "own.h5", a, u, {})
    return [folder / "own.h5"]


@pytest.mark.parametrize("save", [save_npy, save_npz, save_plain_hdf5, save_own])
def test_own_pairs(tmp_path, save):
    a, u = solved("poisson")
    assert run(tmp_path, "poisson", *save(tmp_path, a, u), "--start", 3, "--count", 5) == 0
    pairs = read_pairs(tmp_path / "out/pairs.h5")
    assert np.array_equal(pairs.coefficient, a[3:8]) and np.array_equal(pairs.solution, u[3:8])


@pytest.mark.parametrize("save", [save_v5, save_v73, "npy", "h5"])
@pytest.mark.parametrize("name", SPACES)
def test_fields_of_every_space(tmp_path, name, save):
    a, u = of_space(name)
    if save == "npy":
        files = [tmp_path / "a.npy", tmp_path / "u.npy"]
        for file, array in zip(files, (a, u), strict=True):
            np.save(file, array)
    elif save == "h5":
        files = [tmp_path / "pairs.h5"]
        with h5py.File(files[0], "w") as file:
            file["coefficient"], file["solution"] = a, u
    else:
        files = [save(tmp_path / "pairs.mat", {"coefficient": a, "solution": u})]
    assert main(["import", *given(name), "--output", str(tmp_path / "out.h5"), *map(str, files)]) == 0
    found = read_pairs(tmp_path / "out.h5")
    assert np.array_equal(found.coefficient, a) and np.array_equal(found.solution, u)


def cut(a: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u = u.copy()
    u[:, -1, -1] = 1
    return a, u


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "burgers",
            lambda a, u: (a, u.swapaxes(1, 2)),
            "u.npy has shape (5, 17, 16); accepted: [N, *shape], such as [N, 16, 17]",
        ),
        ("burgers", lambda a, u: (a.T, u), "numpy.transpose(a, (1, 0)) turns it"),
        ("source", lambda a, u: (np.moveaxis(a, 1, -1), u), "numpy.transpose(a, (0, 3, 1, 2)) turns it"),
        ("source", lambda a, u: (a[:, 0], u), "a.npy has shape (5, 16, 16); accepted: [N, *shape], such as [N, 2, 16, 16]"),
        ("source", lambda a, u: (a, u.swapaxes(1, 2)), "transposed against"),
        ("source", lambda a, u: (a[:, ::-1], u), "is none of -∇·(k ∇u) = f"),
        ("corner", lambda a, u: (a[:, ::-1], u[:, ::-1]), "is none of ∇²u = a in (0, 1)² without"),
        ("corner", cut, "solution 0 is not 0 outside the domain; accepted: 0 there"),
        (
            "channel",
            lambda a, u: (a.swapaxes(1, 2), u),
            "such as [N, 48, 16] and [N, 96, 32]; numpy.transpose(a, (0, 2, 1)) turns it",
        ),
        (
            "channel",
            lambda a, u: (a[:, :16], u[:, :16]),
            "a.npy has shape (5, 16, 16); accepted: [N, *shape], such as [N, 48, 16]",
        ),
    ],
)
def test_fields_of_another_space(tmp_path, capsys, name, change, message):
    for file, array in zip("au", change(*of_space(name)), strict=True):
        np.save(tmp_path / f"{file}.npy", np.ascontiguousarray(array))
    files = [str(tmp_path / "a.npy"), str(tmp_path / "u.npy")]
    assert main(["import", *given(name), "--output", str(tmp_path / "out" / "pairs.h5"), *files]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and not list(tmp_path.glob("out/*"))


def test_formats_mix_and_keep_their_order(tmp_path):
    a, u = solved("poisson")
    first = save_v73(tmp_path / "1.mat", public("poisson", a[:4], u[:4]))
    assert run(tmp_path, "poisson", first, *save_npy(tmp_path, a[4:], u[4:]), "--start", 2) == 0
    assert np.array_equal(read_pairs(tmp_path / "out/pairs.h5").coefficient, a[2:])


def test_parameters_and_an_import_that_is_there(tmp_path, capsys):
    problem = make_problem("helmholtz", {"k": 3})
    a = problem.sample_coefficients(range(4), SIZE, 0)
    path = save_v5(tmp_path / "x.mat", public("helmholtz", a.numpy(), problem.solve(a).numpy()))
    assert run(tmp_path, "helmholtz", path, "--set", "k=3") == 0
    attributes = read_attributes(tmp_path / "out/pairs.h5", PAIRS)
    assert attributes["parameters"]["k"] == 3 and attributes["residual"] < 1e-12
    before = (tmp_path / "out/pairs.h5").stat().st_mtime_ns
    assert run(tmp_path, "helmholtz", path, "--set", "k=3") == 0
    assert (tmp_path / "out/pairs.h5").stat().st_mtime_ns == before
    assert run(tmp_path, "helmholtz", path) == 2
    assert "exists and holds something else" in capsys.readouterr().err


@pytest.mark.parametrize("size", [16, 64, 128])
def test_the_residual_of_float32_is_predicted(size):
    """`small` rests on it: what rounding does to exact solutions is within a factor of two of the prediction."""
    problem = make_problem("poisson", {})
    a = problem.sample_coefficients(range(4), size, 0)
    u = problem.solve(a)
    found = relative_residual(problem, a.float(), u.float())
    predicted = rounding_residual(problem, a, u)
    assert np.all((found / predicted > 0.4) & (found / predicted < 1.2))
    worst = 8 * (size - 1) ** 2 * 2.0**-24 * float(u.abs().max()) / float(a.square().mean().sqrt())
    assert predicted.max() < worst + 2.0**-24


def test_another_scheme_is_a_warning_with_its_figures(tmp_path, caplog):
    a, u = solved("poisson")
    assert run(tmp_path, "poisson", *save_npz(tmp_path, a, 1.02 * u)) == 0
    (message,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "relative residual 0.02," in message and "differ by 2 % from this package's solver" in message
    assert message.endswith("another discretisation")
    (kept,) = read_attributes(tmp_path / "out/pairs.h5", PAIRS)["warnings"]
    assert kept in message


def test_pairs_that_do_not_belong_together_are_a_warning(tmp_path, caplog):
    a, u = solved("poisson")
    assert run(tmp_path, "poisson", *save_npz(tmp_path, a, u[::-1])) == 0
    assert "coefficients and solutions do not belong together" in caplog.text


@pytest.mark.parametrize("pde", ["poisson", "helmholtz", "darcy", "navier-stokes"])
@pytest.mark.parametrize("which", ["coefficient", "solution"])
def test_one_array_transposed(tmp_path, capsys, pde, which):
    a, u = solved(pde)
    a, u = (a.mT, u) if which == "coefficient" else (a, u.mT)
    error = refused(tmp_path, capsys, pde, save_v5(tmp_path / "x.mat", public(pde, a, u)))
    assert "put it right and import again" in error
    if pde == "navier-stokes":
        assert f"x.mat: the {which} is transposed against" in error and ", or the" not in error
    else:  # in a symmetric equation it is the same to transpose the one or the other
        both = "the solution is transposed against the coefficient, or the coefficient is transposed against the solution (diff"
        assert both in error and "the arrays cannot tell which" in error


def test_both_transposed_is_found_where_the_equation_is_not_symmetric(tmp_path, capsys):
    a, u = solved("navier-stokes")
    assert "both arrays are transposed" in refused(tmp_path, capsys, "navier-stokes", *save_npz(tmp_path, a.mT, u.mT))
    a, u = solved("poisson")
    assert run(tmp_path, "poisson", *save_npz(tmp_path, a.mT, u.mT)) == 0  # nothing can tell


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("save", [save_v5, save_v73])
def test_misplaced_sample_axis(tmp_path, capsys, axis, save):
    a, u = (np.moveaxis(x, 0, axis) for x in solved("poisson"))
    error = refused(tmp_path, capsys, "poisson", save(tmp_path / "x.mat", public("poisson", a, u)))
    layout, order = {1: ("[S, N, S]", "[2 1 3]"), 2: ("[S, S, N]", "[3 1 2]")}[axis]
    hint = f"it looks like {layout} (10 fields, 16 x 16 nodes): permute(f_data, {order}) turns it"
    assert f"f_data has shape {a.shape}; accepted: [N, S, S]; {hint}" in error


@pytest.mark.parametrize("save", [save_npz, save_npy, save_plain_hdf5])
@pytest.mark.parametrize(
    ("order", "layout", "turn"),
    [
        ((0, 3, 1, 2), "[N, T, S, S]", "numpy.transpose({name}, (0, 2, 3, 1))"),
        ((3, 0, 1, 2), "[T, N, S, S]", "numpy.transpose({name}, (1, 2, 3, 0))"),
        ((1, 2, 3, 0), "[S, S, T, N]", "numpy.transpose({name}, (3, 0, 1, 2))"),
    ],
)
def test_every_axis_of_snapshots_is_named(tmp_path, capsys, save, order, layout, turn):
    a, u = (np.asarray(x) for x in solved("navier-stokes"))
    snapshots = np.stack([u * k for k in range(4)], axis=-1).transpose(order)
    error = refused(tmp_path, capsys, "navier-stokes", *save(tmp_path, a, snapshots))
    assert f" has shape {snapshots.shape}; accepted: [N, S, S] or [N, S, S, T], of which the last snapshot is taken; " in error
    assert f"it looks like {layout} (10 fields, 4 snapshots, 16 x 16 nodes): {turn.format(name='solution')} turns it" in error


def test_snapshots_are_read_from_npy_too(tmp_path):
    a, u = (np.asarray(x) for x in solved("navier-stokes"))
    assert run(tmp_path, "navier-stokes", *save_npy(tmp_path, a, np.stack([u * 0, u], axis=-1))) == 0
    assert np.array_equal(read_pairs(tmp_path / "out/pairs.h5").solution, u)


@pytest.mark.parametrize("layout", ["SSN", "SNS", "N1SS", "NSS1", "1NSS", "SSN1", "NTSS", "TNSS", "NSST", "SSTN", "STSN"])
@pytest.mark.parametrize("snapshots", [True, False])
def test_the_expression_turns_the_array(layout, snapshots):
    sizes = {"N": 5, "S": 7, "T": 3, "1": 1}
    letters = [letter + "xy"[layout[:place].count("S")] if letter == "S" else letter for place, letter in enumerate(layout)]
    wanted = ["N", "Sx", "Sy", *({"1", "T"} & set(layout))]
    fields = np.random.default_rng(0).standard_normal([sizes[name[0]] for name in wanted])
    array = fields.transpose([wanted.index(name) for name in letters])
    text = advice("array", array.shape, snapshots, (5, 7))
    assert f"it looks like [{', '.join(layout)}] (5 fields, " in text
    turned = eval(text.split("): ")[1].removesuffix(" turns it"), {"numpy": np, "array": array})
    expected = fields if fields.ndim == 3 or ("T" in wanted and snapshots) else fields[..., -1]
    assert np.array_equal(turned, expected)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((16, 16), "it looks like [S, S], one field of 16 x 16 nodes: f_data[None] turns it"),
        ((10, 256), "it looks like [N, S S] (10 fields, 16 x 16 nodes in one row): f_data.reshape(10, 16, 16) turns it"),
        ((10, 16, 15), "the fields must be square"),
        ((10, 255), "the fields must be square"),
        ((2, 3, 4, 5, 6), "the fields must be square"),
        ((256,), "the fields must be square"),
    ],
)
def test_other_shapes_are_told_whole(tmp_path, capsys, shape, hint):
    fields = np.ones(shape)
    np.savez(tmp_path / "x.npz", f_data=fields, phi_data=fields)
    error = refused(tmp_path, capsys, "poisson", tmp_path / "x.npz")
    assert f"x.npz: f_data has shape {shape}; accepted: [N, S, S]; {hint}" in error


@pytest.mark.parametrize("pde", list(KEYS))
def test_swapped_arrays(tmp_path, capsys, pde):
    a, u = (np.asarray(x) for x in solved(pde))
    error = refused(tmp_path, capsys, pde, *save_npy(tmp_path, u, a))
    assert "coefficient and solution are swapped; put it right and import again" in error


@pytest.mark.parametrize("axis", [1, 2])
def test_misplaced_sample_axis_of_as_many_fields_as_nodes(tmp_path, capsys, axis):
    """No shape tells it, but the equation does."""
    a, u = solved("poisson", count=SIZE)
    move = np.moveaxis
    error = refused(tmp_path, capsys, "poisson", *save_npz(tmp_path, move(a, 0, axis), move(u, 0, axis)))
    assert f"the sample axis of both arrays is axis {axis} instead of 0" in error
    error = refused(tmp_path, capsys, "poisson", *save_npz(tmp_path, a, move(u, 0, axis)))
    assert f"the sample axis of the solution is axis {axis} instead of 0" in error


def with_value(array: np.ndarray, where: tuple[int, ...], value: float) -> np.ndarray:
    changed = array.copy()
    changed[where] = value
    return changed


def bad_arrays() -> dict[str, tuple[str, dict[str, np.ndarray], str]]:
    a, u = solved("poisson", count=40)
    d, p = solved("darcy", count=40)
    return {
        "keys": ("poisson", {"f_data": a, "u": u}, "wanted f_data and phi_data, or coefficient and solution; it holds f_data, u"),
        "other problem": ("darcy", {"f_data": a, "phi_data": u}, "lacks arrays of darcy: wanted thresh_a_data and thresh_p_data"),
        "numbers differ": ("poisson", public("poisson", a, u[:20]), "(40, 16, 16), "),
        "sizes differ": ("poisson", public("poisson", a, u[:, :15, :15]), "they must agree"),
        "not square": (
            "poisson",
            public("poisson", a[:, :, :15], u[:, :, :15]),
            "(40, 16, 15); accepted: [N, S, S]; the fields must",
        ),
        "one field": ("poisson", public("poisson", a[0], u[0]), "has shape (16, 16); accepted: [N, S, S]"),
        "snapshots": ("poisson", public("poisson", a, np.stack([u] * 3, -1)), "has shape (40, 16, 16, 3); accepted"),
        "tiny": ("poisson", public("poisson", a[:, :3, :3], u[:, :3, :3]), "resolution 3: too small for the stencil"),
        "NaN": ("poisson", public("poisson", a, with_value(u, (1, 2, 3), np.nan)), "NaN or infinite values"),
        "NaN in a checked field": ("poisson", public("poisson", with_value(a, (0, 2, 3), np.inf), u), "NaN or infinite values"),
        "complex": ("poisson", public("poisson", a + 1j, u), "f_data is not an array of real numbers"),
        "text": ("poisson", {"f_data": np.array(["a", "b"]), "phi_data": u}, "f_data is not an array of real numbers"),
        "negative": (
            "darcy",
            public("darcy", with_value(d, (1, 2, 3), -3), p),
            "coefficient 1, with values from -3 to 12, is none of",
        ),
        "zero": ("darcy", public("darcy", with_value(d, (0, 2, 3), 0), p), "coefficient 0, with values from 0 to 12, is none of"),
        "boundary": ("helmholtz", {"f_data": a, "psi_data": u}, "coefficient 0, with values"),
    }


@pytest.mark.parametrize("name", list(bad_arrays()))
def test_bad_arrays(tmp_path, capsys, name):
    pde, arrays, message = bad_arrays()[name]
    path = save_v5(tmp_path / "x.mat", arrays)
    error = refused(tmp_path, capsys, pde, path)
    assert message in error and ("x.mat" in error or "pairs.h5" in error or "resolution" in error)


@pytest.mark.parametrize("save", [save_v5, save_v73])
def test_too_few_fields(tmp_path, capsys, save):
    path = save(tmp_path / "x.mat", public("poisson", *solved("poisson")))
    assert "x.mat: 10 fields, asked for 11 from number 0 on" in refused(tmp_path, capsys, "poisson", path, "--count", 11)
    assert "10 fields, asked for 4 from number 7 on" in refused(tmp_path, capsys, "poisson", path, "--start", 7, "--count", 4)
    assert "10 fields, asked for" in refused(tmp_path, capsys, "poisson", path, "--start", 10)
    assert "count 0; accepted" in refused(tmp_path, capsys, "poisson", path, "--count", 0)


@pytest.mark.parametrize("save", [save_v5, save_v73])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated_files(tmp_path, capsys, save, share):
    path = save(tmp_path / "x.mat", public("poisson", *solved("poisson")))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "x.mat" in refused(tmp_path, capsys, "poisson", path)


def test_files_of_different_sizes(tmp_path, capsys):
    files = [save_v5(tmp_path / f"{n}.mat", public("poisson", *solved("poisson", size=n))) for n in (16, 12)]
    assert "12.mat has 12 nodes per side" in refused(tmp_path, capsys, "poisson", *files)


def test_other_files(tmp_path, capsys):
    (tmp_path / "text.mat").write_text("nothing at all, and nothing more")
    assert "text.mat is of unknown format; accepted: .mat of version 5 or 7.3" in refused(
        tmp_path, capsys, "poisson", tmp_path / "text.mat"
    )
    assert "none.mat cannot be read: No such file" in refused(tmp_path, capsys, "poisson", tmp_path / "none.mat")
    assert "cannot be read: Is a directory" in refused(tmp_path, capsys, "poisson", tmp_path)
    one, _ = save_npy(tmp_path, *solved("poisson"))
    assert "coefficient.npy is one array; give two .npy files" in refused(tmp_path, capsys, "poisson", one)


def packed(path: Path) -> None:
    path.write_bytes(gzip.compress(b"x"))


def encrypted(path: Path) -> None:
    """The flag of the first member of an archive is set in both of its headers."""
    np.savez(path.open("wb"), coefficient=np.ones((3, 4, 4)), solution=np.ones((3, 4, 4)))
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def zip_of_a_mac(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pairs.mat", b"MATLAB")
        archive.writestr("__MACOSX/._pairs.mat", b"\0")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "is empty; accepted: .mat"),
        (packed, "is gzip; accepted: .mat of version 5"),
        (lambda path: path.write_bytes(b"%PDF-1.7"), "is PDF; accepted"),
        (encrypted, "is encrypted, password required"),
        (zip_of_a_mac, "lacks arrays of poisson: wanted f_data and phi_data, or coefficient and solution; it holds __MACOSX"),
        (lambda path: scipy.io.savemat(path, {"f_data": np.ones((4, 4))}, format="4"), "is a MATLAB file of version 4, which"),
        (lambda path: path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(200)), "is not an HDF5 file: the signature"),
        (lambda path: np.savez(path.open("wb"), coefficient="text", solution=np.ones(3)), "coefficient is not an array of real"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, capsys, make, message):
    make(tmp_path / "x.mat")
    error = refused(tmp_path, capsys, "poisson", tmp_path / "x.mat")
    assert "x.mat" in error and message in error


@pytest.mark.parametrize("save", [save_npz, save_plain_hdf5, save_npy])
def test_a_file_of_arrays_that_another_program_has_open_or_that_is_cut_off(tmp_path, capsys, save):
    files = save(tmp_path, *solved("poisson"))
    if save is save_plain_hdf5:
        with files[0].open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            error = refused(tmp_path, capsys, "poisson", *files)
        assert "cannot be read: Resource temporarily unavailable (another program has it open" in error
    os.truncate(files[0], files[0].stat().st_size - 10)
    error = refused(tmp_path, capsys, "poisson", *files)
    assert "is truncated: it has" in error if save is save_plain_hdf5 else "cannot be read: " in error


class Trap:
    """Pickled, it would make a folder when it is loaded."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_is_unpickled(tmp_path, capsys):
    trap = np.empty(2, dtype=object)
    trap[:] = Trap(tmp_path / "sprung")
    np.savez(tmp_path / "x.npz", coefficient=trap, solution=trap)
    np.save(tmp_path / "x.npy", trap)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    torch.save({"coefficient": Trap(tmp_path / "sprung")}, tmp_path / "x.pt")
    for names in (["x.npz"], ["x.npy", "x.npy"], ["x.pkl"], ["x.pt"]):
        refused(tmp_path, capsys, "poisson", *(tmp_path / name for name in names))
    assert not (tmp_path / "sprung").exists()

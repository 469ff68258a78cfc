"""`ddis solve` and `ddis.solve`: the posterior, what is said of it, the files, and docs/solve.md."""

import logging
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from solving import GOOD, ROOT, SIZE, example, finished_study, observed, points, solve_command, write_points

import ddis
from ddis.cli import main
from ddis.errors import InputError
from ddis.grid import square
from ddis.operators.solver import or_nan
from ddis.pde import make_problem
from ddis.stages.solve import report_weights, threads


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with finished_study(tmp_path_factory.mktemp("solve")) as folder:
        yield folder


# The posterior


def test_the_exact_posterior_of_points_between_nodes_covers_the_truth(folder):
    """16 fields, 30 points, noiseless: 90 % intervals cover, and the misfit is explained, as it is not without that term."""
    from scipy import stats

    covered, ratios = [], []
    for seed in range(16):
        truth, rows = observed(30, 0.0, seed)
        found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method="exact", samples=8)
        width = stats.t.ppf(0.95, 7) * found.std * np.sqrt(1 + 1 / 8)
        covered.append(np.mean(np.abs(found.mean - truth) <= width))
        ratios.append(found.misfit.ratio)
        assert found.misfit.explained
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)
    assert min(ratios) > 0.8 and max(ratios) < 1.2


def test_a_misfit_that_noise_does_not_explain_is_reported(folder, tmp_path, caplog):
    """100 points with 30 % noise: as stated, stated as a tenth of it, and with one value of the wrong sign."""
    model, (_, rows) = folder / "models" / "poisson", observed(100, 0.3)
    honest = ddis.solve(model, rows, percent=100, method="exact")
    assert honest.misfit.explained and honest.misfit.ratio == pytest.approx(1, abs=0.3)
    bold = rows * [1, 1, 1, 0.1]
    wrong = ddis.solve(model, bold, percent=100, method="exact")
    assert not wrong.misfit.explained and wrong.misfit.ratio > 2
    outlier = rows.copy()
    largest = int(np.abs(rows[:, 2]).argmax())
    outlier[largest, 2] *= -1
    found = ddis.solve(model, outlier, percent=100, method="exact")
    assert not found.misfit.explained and found.misfit.worst == largest
    write_points(outlier, tmp_path / "outlier.csv")
    assert main(solve_command(folder, tmp_path / "outlier.csv", tmp_path / "outlier.h5", "--method", "exact")) == 0
    assert re.search(r"warning: misfit is [\d.]+ times what noise explains \(chi-square \d+", caplog.text)
    assert f"Largest at ({rows[largest, 0]:g}, {rows[largest, 1]:g}): " in caplog.text


def test_constrained_coefficients_and_periodic_domains(folder):
    """Every sample is admissible: darcy within its two values, helmholtz zero on the boundary; navier-stokes near the seam."""
    rng = np.random.default_rng(2)
    rows = np.stack([*points(12), 1e-3 * rng.standard_normal(12)], axis=1)
    for problem in ("darcy", "helmholtz", "navier-stokes"):
        rows[0, :2] = (1.0, 0.99) if problem == "navier-stokes" else (0.5, 0.5)
        found = ddis.solve(folder / "models" / problem, rows, percent=100, method="kriging", samples=3)
        assert found.samples.shape == (3, SIZE, SIZE) and np.isfinite(found.samples).all()
        if problem == "darcy":
            assert found.samples.min() >= 3 and found.samples.max() <= 12
        if problem == "helmholtz":
            assert (found.samples[:, 0] == 0).all() and (found.samples[:, :, -1] == 0).all() and found.std[3, 3] > 0
        if problem == "navier-stokes":
            assert found.axes["x"][-1] == np.float32((SIZE - 1) / SIZE) and found.observations.places[0, 0] == 0


def test_almost_coincident_points_without_noise_are_no_singular_system(folder):
    _, rows = observed(10, 0.0)
    rows = np.concatenate([rows, rows + np.array([1e-5, 0, 0, 0])])
    found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method="exact")
    assert np.isfinite(found.samples).all() and found.misfit.explained


def boreholes() -> pd.DataFrame:
    """12 values of a solution and 5 of its coefficient, at nodes, in mixed order; noise of 2 % of their deviations."""
    problem, rng = make_problem("poisson", {}), np.random.default_rng(8)
    coefficient = problem.sample_coefficients([3], SIZE, 6)
    fields = np.stack([problem.solve(coefficient)[0].numpy(), coefficient[0].numpy()])
    of = rng.permutation([0] * 12 + [1] * 5)
    i, j = np.divmod(rng.choice(SIZE**2, 17, replace=False), SIZE)
    inside = np.where(of == 0, 1, 0)  # the solution is known on the boundary
    i, j = (np.clip(n, inside, SIZE - 1 - inside) for n in (i, j))
    noise = 0.02 * fields.std(axis=(1, 2))[of]
    value = fields[of, i, j] + noise * rng.standard_normal(17)
    names = np.array(["solution", "coefficient"])[of]
    return pd.DataFrame({"x": i / (SIZE - 1), "y": j / (SIZE - 1), "value": value, "noise": noise, "of": names})


def at_nodes(fields: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """Values [N, m] of fields [N, S, S] at the nodes of the rows."""
    i, j = (np.round(rows[axis] * (SIZE - 1)).astype(int) for axis in "xy")
    return fields[:, i, j]


def test_values_of_the_coefficient_and_of_the_solution_give_the_closed_form(folder):
    """100 exact samples: their mean is about 1/sqrt(100) of the posterior's spread away from dense linear algebra."""
    rows, problem, modes = boreholes(), make_problem("poisson", {}), square(SIZE).basis
    units = modes.inverse(torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, SIZE, SIZE))
    of = (rows["of"] == "coefficient").to_numpy()
    seen = np.where(of, at_nodes(units.numpy(), rows), at_nodes(problem.solve(units).numpy(), rows)).T
    spectrum = np.diag(problem.prior_spectrum(SIZE).numpy().ravel())
    gain = spectrum @ seen.T @ np.linalg.inv(seen @ spectrum @ seen.T + np.diag(rows["noise"].to_numpy() ** 2))
    mean, covariance = gain @ rows["value"].to_numpy(), spectrum - gain @ seen @ spectrum
    found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method="exact", samples=100)
    samples = modes.forward(torch.from_numpy(found.samples).double()).flatten(1).numpy()
    assert np.linalg.norm(samples.mean(axis=0) - mean) < 0.25 * np.sqrt(np.trace(covariance))
    assert samples.var(axis=0, ddof=1).sum() == pytest.approx(np.trace(covariance), rel=0.2)
    assert found.misfit.explained and np.array_equal(found.observations.of, of)
    expected = np.where(of, at_nodes(found.samples, rows), at_nodes(problem.solve(torch.from_numpy(found.samples)).numpy(), rows))
    assert np.abs(found.predicted - expected).max(axis=0) / rows["noise"].to_numpy() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("method", ["exact", "ddis-gn", "tikhonov"])
def test_samples_follow_values_of_the_coefficient_alone(folder, method):
    """The operator takes no part; 2 % noise leaves a standard deviation of at most about 2 % of the prior's at these nodes."""
    rows = boreholes()
    rows = rows[rows["of"] == "coefficient"]
    found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method=method, samples=16)
    assert (at_nodes(found.std[None], rows)[0] < 0.1 * found.std.max()).all()
    assert (np.abs(at_nodes(found.mean[None], rows)[0] - rows["value"]) < 4 * rows["noise"]).all()
    assert found.misfit.ratio == pytest.approx(1, abs=0.5) and found.picture().axes[0].get_title() == "0 values of the solution"


def test_joint_methods_are_guided_by_values_of_the_coefficient(folder):
    rows = boreholes()
    own = (rows["of"] == "coefficient").to_numpy()
    away = {}
    for run in ("guided", "unguided"):
        found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method=run, samples=8)
        assert np.allclose(found.predicted[:, own], at_nodes(found.samples, rows[own]), atol=1e-4)
        away[run] = np.square(found.predicted - rows["value"].to_numpy())[:, own].mean()
    assert away["guided"] < 0.2 * away["unguided"]


def test_the_worst_value_may_be_one_of_the_coefficient(folder, tmp_path, caplog):
    rows = boreholes()
    worst = int(np.flatnonzero(rows["of"] == "coefficient")[1])
    rows.loc[rows["of"] == "solution", "noise"] *= 1e6
    rows.loc[worst, "value"] += 3e4 * rows.loc[worst, "noise"]
    rows.to_csv(tmp_path / "points.csv", index=False)
    assert main(solve_command(folder, tmp_path / "points.csv", tmp_path / "out.h5", "--method", "exact")) == 0
    assert f"Largest at ({rows.x[worst]:g}, {rows.y[worst]:g}), of the coefficient: " in caplog.text
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.array_equal(file["of"], rows["of"] == "coefficient") and file.attrs["worst"] == worst
        assert np.allclose(file["observations"], rows[["x", "y", "value", "noise"]])


@pytest.mark.parametrize("method", ["ddis", "ddis-gn", "tikhonov", "fundps"])
def test_methods_with_an_operator_or_a_joint_prior(folder, method):
    _, rows = observed(10, 0.01)
    found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method=method, samples=2)
    assert np.isfinite(found.mean).all() and found.predicted.shape == (2, 10)
    known = found.attributes
    assert (
        known["run"] == method
        and known["pairs"] == 64
        and set(known["models"])
        == set({"fundps": ["joint-100"], "tikhonov": ["operator-100"]}.get(method, ["prior", "operator-100"]))
    )


def test_an_answer_through_a_network_says_how_many_samples_the_solver_leaves(folder, tmp_path, caplog):
    """The network of the tiny study has learnt nothing; `exact` has no network, and `ddis` does not follow R."""
    _, rows = observed(10, 0.01)
    write_points(rows, tmp_path / "points.csv")
    caplog.set_level(logging.INFO)
    assert main(solve_command(folder, tmp_path / "points.csv", tmp_path / "out.h5", "--method", "tikhonov")) == 0
    with h5py.File(tmp_path / "out.h5") as file:
        weights, effective = file["weights"][:], file.attrs["effective_samples"]
    assert len(weights) == 4 and weights.sum() == pytest.approx(1) and effective == pytest.approx(1 / np.square(weights).sum())
    line = f"against the solver's likelihood: effective {effective:.2g} of 4 samples; too few to reweight"
    assert effective < 2 and line in caplog.text
    for method in ("exact", "ddis"):
        found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method=method, samples=2)
        assert found.weights is None and "effective_samples" not in found.attributes


@pytest.mark.parametrize(
    ("effective", "text"),
    [
        (9.4, "effective 9.4 of 256 samples; too few"),
        (120.4, "effective 120 of 256 samples; too few"),
        (128.2, "effective 128 of 256 samples\n"),
    ],
)
def test_the_effective_number_is_written_in_full(effective, text, caplog):
    caplog.set_level(logging.INFO)
    report_weights(SimpleNamespace(weights=np.full(256, 1 / 256), attributes={"effective_samples": effective}))
    assert text in caplog.text


def test_a_solver_that_refuses_every_sample_or_fails_loses_none(folder, tmp_path, monkeypatch, caplog):
    _, rows = observed(10, 0.01)
    write_points(rows, tmp_path / "points.csv")
    for error, said in (
        (InputError, "warning: the solver refuses all 4 samples"),
        (ZeroDivisionError, "fails: ZeroDivisionError: no"),
    ):

        def refuse(problem, coefficient, error=error):
            raise error("no")

        with monkeypatch.context() as patch:
            patch.setattr("ddis.posterior.solved", lambda problem, a: or_nan(partial(refuse, problem), a))
            command = solve_command(folder, tmp_path / "points.csv", tmp_path / "out.h5", "--method", "tikhonov", "--force")
            assert main(command) == 0
        assert said in caplog.text
        with h5py.File(tmp_path / "out.h5") as file:
            assert file["samples"].shape[0] == 4
            if error is InputError:
                assert file.attrs["effective_samples"] == 0 and not file["weights"][:].any()
            else:
                assert "weights" not in file and "effective_samples" not in file.attrs


def test_samples_that_are_not_finite_are_left_out(folder, caplog):
    rows = np.array([[0.5, 0.5, 1.0], [0.25, 0.5, 1.0]])
    found = ddis.solve(folder / "models" / "poisson", rows, percent=100, method="failing", samples=6)
    assert len(found.samples) == 3 and found.attributes["n_failed"] == 3 and np.isfinite(found.std).all()
    assert "3 of 6 samples are not finite and are left out" in caplog.text
    with pytest.raises(InputError, match="5 of 6 samples are not finite"):
        ddis.solve(folder / "models" / "poisson", -rows * [-1, -1, 1], percent=100, method="failing", samples=6)


# Files


def test_the_same_command_gives_the_same_arrays_and_does_not_write_over_them(folder, tmp_path, capsys):
    _, rows = observed(10, 0.01)
    write_points(rows, tmp_path / "points.csv")
    output = tmp_path / "new" / "out.h5"
    command = solve_command(folder, tmp_path / "points.csv", output, percent="10")
    assert main(command) == 0
    with h5py.File(output) as file:
        first = file.attrs["digest"]
        shapes = {name: file[name].shape for name in file}
        assert file.attrs["format"] == "ddis-solution" and file.attrs["percent"] == 10 and file.attrs["pairs"] == 6
        assert "git_commit" in file.attrs["provenance"] and file.attrs["operator"] == "fno"
    grid = (SIZE, SIZE)
    expected = {"mean": grid, "std": grid, "samples": (4, *grid), "x": (SIZE,), "y": (SIZE,)}
    assert shapes == expected | {"observations": (10, 4), "predicted": (4, 10), "weights": (4,)}
    assert (tmp_path / "new" / "out.png").read_bytes()[:4] == b"\x89PNG"
    assert main(command) == 2
    assert "out.h5 is there already; choose another --output, or write over it with --force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    with h5py.File(output) as file:
        assert file.attrs["digest"] == first
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.h5", "out.png"]


@pytest.mark.parametrize("failing", ["to_png", "write_arrays"])
def test_the_file_and_its_picture_are_written_together(folder, tmp_path, monkeypatch, capsys, failing):
    (tmp_path / "points.csv").write_text(GOOD)
    command = solve_command(folder, tmp_path / "points.csv", tmp_path / "new" / "out.h5", "--method", "exact")

    def fail(*_: object) -> None:
        raise InputError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(f"ddis.stages.solve.{failing}", fail)
        assert main(command) == 2
    assert list((tmp_path / "new").iterdir()) == []
    assert main(command) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["out.h5", "out.png"]
    (tmp_path / "new" / "out.png").unlink()
    (tmp_path / "new" / "out.png").mkdir()
    assert main([*command, "--force"]) == 2
    assert "out.png is a folder; choose another --output" in capsys.readouterr().err


def test_a_study_that_was_moved_needs_only_its_configuration_and_models(folder, tmp_path, monkeypatch):
    _, rows = observed(10, 0.01)
    here = ddis.solve(folder / "models" / "poisson", rows, percent=10, samples=2)
    shutil.copytree(folder / "models", tmp_path / "elsewhere" / "models")
    shutil.copy(folder / "config.yaml", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere" / "models")
    for model in ("poisson", Path("../models/poisson/")):
        there = ddis.solve(model, rows, percent=10, samples=2)
        assert np.array_equal(there.samples, here.samples)


# The documentation


def test_the_commands_of_the_page(folder, tmp_path, monkeypatch, capsys):
    """Every command of docs/solve.md that begins with `ddis` or `python`, on the tiny study; and its Python."""
    page, finished = (ROOT / "docs" / "solve.md").read_text(encoding="utf-8"), folder.absolute()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(example, "SIZE", SIZE)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "quickstart").symlink_to(finished)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    commands = re.findall(r"^    (ddis solve .*|python docs/solve/example\.py .*)$", page, re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "ddis":
            assert main(arguments) == 0
        else:
            monkeypatch.setattr(sys, "argv", arguments)
            example.main()
            assert "relative l2 error of the mean" in capsys.readouterr().out
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "docs/solve.md", "exec"), {})


def test_the_page_is_refreshed_with_what_the_command_says_after_its_progress():
    import refresh

    said = [
        "poisson ddis-gn: 16 of 16 samples",
        "solution.h5, solution.png: mean",
        "warning: misfit is 5 times",
        "importance weights",
    ]
    assert refresh.lines_from("solution.h5", said) == said[1:]
    assert refresh.lines_from("warning: misfit", said)[0] == said[2]


def test_the_committed_observations_are_those_of_the_script():
    committed = np.loadtxt(ROOT / "docs" / "solve" / "observations.csv", delimiter=",", skiprows=1)
    assert np.allclose(committed, example.observations(), rtol=1e-5)


def test_torch_is_left_as_it_was():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with threads(3):
            assert torch.get_num_threads() == 3 and not torch.backends.cudnn.allow_tf32
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)

"""Observations for `ddis solve` and `ddis.solve`: their forms, and input that is refused."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from solving import GOOD, PLAIN, SIZE, finished_study, observed, solve_command

import ddis
from ddis.cli import main
from ddis.data.observations import read_observations
from ddis.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with finished_study(tmp_path_factory.mktemp("solve")) as folder:
        yield folder


def test_forms_of_observations_agree(folder, tmp_path):
    model, (_, rows) = folder / "models" / "poisson", observed(9, 0.01)
    rows[-1] = rows[0]
    table = pd.DataFrame(rows, columns=["x", "y", "value", "noise"])
    table[["noise", "value", "y", "x"]].to_csv(tmp_path / "points.csv", index=False)
    forms = [rows, rows.tolist(), table, dict(table), tmp_path / "points.csv", str(tmp_path / "points.csv")]
    percents = ["100", 100, 100.0, "10", 50, 1]  # `exact` uses no pairs
    found = [ddis.solve(model, f, percent=p, samples=2, method="exact") for f, p in zip(forms, percents, strict=True)]
    assert len(found[0].observations) == 8
    for other in found[1:]:
        assert np.allclose(other.samples, found[0].samples, atol=1e-5)
    different = ddis.solve(model, rows, percent=100, samples=2, method="exact", seed=1)
    assert np.abs(different.samples - found[0].samples).max() > 0.01


def test_a_mask_as_in_the_files_of_samples(folder):
    mask, field = np.zeros((SIZE, SIZE), dtype=bool), np.ones((SIZE, SIZE))
    mask[3, 7] = mask[9, 2] = True
    data = read_observations((mask, field), PLAIN)
    assert data.table()[:, :2] * (SIZE - 1) == pytest.approx(np.array([[3, 7], [9, 2]])) and (data.value == 1).all()
    for wrong in ((mask[:-1], field[:-1]), (mask,), (mask, field[None])):
        with pytest.raises(InputError, match=r"observations: shapes .*accepted: mask and solution, both \(16, 16\)"):
            ddis.solve(folder / "models" / "poisson", wrong, percent=100)
    with pytest.raises(InputError, match="a mask of int64"):
        ddis.solve(folder / "models" / "poisson", (mask.astype(int), field), percent=100)


def test_the_column_of_is_read_in_any_case_and_empty_is_the_solution(tmp_path):
    (tmp_path / "points.csv").write_text(
        "Of;X;y;value\n Coefficient ;0;1;0,5\n;0,5;0,5;2\nSOLUTION;0,25;0,5;3\ncoefficient;0,5;0,5;2\n"
    )
    columns = {"x": [0, 0.5, 0.25, 0.5], "y": [1, 0.5, 0.5, 0.5], "value": [0.5, 2, 3, 2]}
    words = ["COEFFICIENT", None, "solution ", "coefficient"]
    for source in (
        tmp_path / "points.csv",
        {**columns, "OF": words},
        pd.DataFrame({**columns, "of": [words[0], np.nan, *words[2:]]}),
    ):
        data = read_observations(source, PLAIN)
        assert data.of.tolist() == [True, False, False, True]
        assert data.table().tolist() == [[0, 1, 0.5, 0], [0.5, 0.5, 2, 0], [0.25, 0.5, 3, 0], [0.5, 0.5, 2, 0]]
    with pytest.raises(InputError, match=r"observations: row 2: of is flux; accepted: solution \(or empty\), coefficient"):
        read_observations({**columns, "of": ["", "flux", 1, ""]}, PLAIN)


def test_every_node_of_the_coefficient_may_be_observed_and_no_more():
    i, j = np.divmod(np.arange(SIZE**2), SIZE)
    rows = pd.DataFrame({"x": i / (SIZE - 1), "y": j / (SIZE - 1), "value": 1.0, "of": "coefficient"})
    assert len(read_observations(rows, PLAIN)) == 256
    more = pd.concat([rows, rows[:1] + {"x": 0.01, "y": 0.0, "value": 0.0, "of": ""}])
    with pytest.raises(InputError, match="257 observations of the coefficient are more than there are nodes; accepted: 1 to 256"):
        read_observations(more, PLAIN)
    with pytest.raises(InputError, match="256 observations are more than there are nodes; accepted: 1 to 196"):
        read_observations(rows.drop(columns="of"), PLAIN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"points\.csv: it is empty; accepted: a header such as x,y,value"),
        ("x,y,value\n", r"no observation; accepted: 1 to 196 at 16 x 16 nodes"),
        ("x,y,u\n0.5,0.5,1\n", r"columns x, y, u; accepted: x, y, value, and optionally noise"),
        ("x,y,value,time\n0.5,0.5,1,0\n", r"columns x, y, value, time"),
        ("x,y,value\n0.5,0.5,1\n0.5,1.5,1\n", r"line 3: point \(0\.5, 1\.5\) is outside the domain \(1 of 2 are\)"),
        ("x,y,value\n-0.1,0.5,1\n", r"line 2: point \(-0\.1, 0\.5\) is outside the domain"),
        ("x,y,value\n0.5,0.5,1\n0.2,0.5,nan\n", r"line 3: value is nan; accepted: a finite number"),
        ("x,y,value\n0.5,0.5,inf\n", r"line 2: value is inf"),
        ("x,y,value\n0.5,,1\n", r"line 2: y is empty"),
        ("x,y,value\n0.5,0.5,much\n", r"line 2: value is much"),
        (GOOD + "0.5,0.5,3,0.1\n", r"line 2 and line 4 give different values or noise for the point \(0\.5, 0\.5\)"),
        (GOOD + "0.5,0.5,1,0.2\n", r"line 2 and line 4 give different values or noise"),
        (GOOD + "0.5000001,0.5,3,0.1\n", r"line 2 and line 4 give different values or noise"),
        ("x,y,value\n0.5,0.25,0.004,0.0001\n", r"line 2 has 4 cells, and the header 3 names \(x, y, value\)"),
        ("x,y,value\n0.5,0.25,1e200\n", r"value 1e\+200 at \(0\.5, 0\.25\) is more than 1e\+06 standard deviations"),
        ("x,y,value,noise\n0.5,0.5,1,-0.1\n", r"line 2: noise -0\.1; accepted: a standard deviation, 0 or more"),
        (
            "x,y,value,of\n0.5,0.5,1,\n0.2,0.5,1,flux\n",
            r"points\.csv: line 3: of is flux; accepted: solution \(or empty\), coeff",
        ),
        (
            "x,y,value,of\n0.5,0.5,1,solution\n0.5,0.5,2,coefficient\n0.5,0.5,3,coefficient\n",
            r"line 3 and line 4 give different values or noise for the point \(0\.5, 0\.5\)",
        ),
        ("x,y,value\n0.5,0.5\n0.1,0.1,1,1,1\n", r"points\.csv: line 2 has 2 cells, and the header 3 names"),
    ],
)
def test_observations_that_cannot_be_used(folder, tmp_path, capsys, text, message):
    (tmp_path / "points.csv").write_text(text)
    assert main(solve_command(folder, tmp_path / "points.csv", tmp_path / "out.h5")) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error and not (tmp_path / "out.h5").exists()


def test_more_observations_than_nodes_and_wrong_shapes(folder):
    many = np.random.default_rng(0).uniform(0.1, 0.9, (197, 3))
    with pytest.raises(InputError, match="197 observations are more than there are nodes; accepted: 1 to 196"):
        ddis.solve(folder / "models" / "poisson", many, percent=100)
    for wrong in (many[:, :2], many[0], np.zeros((3, 5))):
        with pytest.raises(InputError, match=r"array of shape .*accepted: \[m, 3\]"):
            ddis.solve(folder / "models" / "poisson", wrong, percent=100)
    with pytest.raises(InputError, match="accepted: columns of one length"):
        ddis.solve(folder / "models" / "poisson", {"x": [0.1, 0.2], "y": [0.1], "value": [1.0]}, percent=100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--percent": "5"}, r"percent 5: ddis-gn has no network for it in .*poisson; percents there: 10, 100"),
        ({"--percent": "0"}, r"percent '0'; accepted"),
        ({"--samples": "1"}, r"samples 1; accepted: 2 or more"),
        ({"--seed": "-1"}, r"seed -1; accepted: a whole number, 0 or more"),
        ({"--method": "nonsense"}, r"method 'nonsense' is unknown; accepted: ddis, ddis-gn"),
        ({"--method": "prior-mean"}, r"samples: Input should be less than or equal to 1"),
        ({"--output": "out.txt"}, r"--output out\.txt; accepted: a name that ends with \.h5"),
        ({"--observations": "nowhere.csv"}, r"nowhere\.csv cannot be read: No such file"),
        (
            {"--model": "results/tiny/models/burgers"},
            r"model results/tiny/models/burgers; accepted: results/<study>/models/<problem>",
        ),
        ({"--model": "results/tiny"}, r"model results/tiny; accepted"),
        (
            {"--method": "fundps", "--percent": "10"},
            r"percent 10: fundps has no network for it in .*poisson; percents there: 100",
        ),
    ],
)
def test_other_input_that_cannot_be_used(folder, tmp_path, capsys, change, message):
    (tmp_path / "points.csv").write_text(GOOD)
    command = [*solve_command(folder, tmp_path / "points.csv", tmp_path / "out.h5"), "--seed", "0", "--method", "ddis-gn"]
    for name, value in change.items():
        command[command.index(name) + 1] = value
    assert main(command) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error

"""What happens to input that cannot be used, and to samples that become non-finite: one clear line, and the others go on."""

import json
import logging
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from ddis.cli import main
from ddis.config import Study
from ddis.data.hdf5 import write_arrays
from ddis.data.store import SAMPLES, Samples, read_samples, write_samples
from ddis.errors import InputError
from ddis.evaluation.scores import field_scores
from ddis.evaluation.table import error_row
from ddis.sampling.base import Method, State
from ddis.stages import generate, sample, tables

CONFIGURATION = {
    "study": "bad",
    "device": "cpu",
    "problems": {"poisson": {"pde": "poisson"}},
    "data": {"resolution": 12, "train": 32, "validation": 2, "test": 4},
    "fractions": [0.5, 1.0],
    "observations": {"sparse": {"count": 20, "noise": 0.01}},
    "runs": {"broken": {"method": "test_bad_input:Broken", "samples": 4, "batch": 8}, "exact": {"samples": 4}},
}


class Broken(Method):
    """Zero everywhere, but NaN in one sample of the third test field."""

    prior = None

    def sample(self, batch, prepared):
        x0 = torch.zeros(len(batch.generators), *batch.shape)
        third = (batch.observation.values == THIRD[0]).all(dim=1).nonzero() if THIRD else torch.empty(0)
        if len(third):
            x0[4 * int(third[0]) + 1, 3, 3] = torch.nan
        yield State(1, 1, 0.0, x0)


THIRD: list[torch.Tensor] = []


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study with its data, in its own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("bad"))
        made = Study.load(CONFIGURATION)
        for split in ("train", "validation", "test"):
            generate.run(made, "poisson", split)
        yield made


def test_a_field_that_becomes_non_finite_is_named_and_the_others_go_on(study, caplog):
    case = next(case for case in study.cases() if case.run == "broken")
    observed = sample.observe(study, case, "test", np.arange(4))
    THIRD[:] = [sample.Sampler(study, case, study.run_for(case)).posterior(observed).values[2]]
    with caplog.at_level(logging.WARNING):
        for each in study.cases():
            sample.run(study, **vars(each))
    assert "poisson sparse broken-100: 1 of 4 test fields are not finite and count as failed: 2" in caplog.text
    samples = read_samples(study.folder / "samples" / "poisson" / "sparse" / "broken-100.h5")
    assert np.isnan(samples.coefficient[2, 1, 3, 3]) and np.isfinite(np.delete(samples.coefficient, 2, axis=0)).all()
    row = error_row(field_scores(samples), None)
    assert row["n_failed"] == 1 and row["n_fields"] == 4 and row["l2_mean"] == pytest.approx(100)
    tables.run(study)
    text = (study.folder / "tables" / "errors.md").read_text()
    assert "broken at 100 % of pairs (poisson, sparse): 1 of 4 fields failed and are left out." in text


def test_samples_whose_mask_has_another_shape_are_refused(tmp_path):
    fields, members = np.zeros((4, 12, 12)), np.zeros((4, 3, 12, 12))
    arrays = dict.fromkeys(("mean", "std", "coefficient_true", "solution_true", "observation"), fields)
    arrays |= {"coefficient": members, "mask": fields[:, :-1] > 0}
    with pytest.raises(InputError, match=r"x\.h5: mask \(4, 11, 12\) does not fit the fields \(4, 12, 12\)"):
        write_samples(tmp_path / "x.h5", Samples(**arrays))
    write_arrays(tmp_path / "x.h5", SAMPLES, arrays, {})
    with pytest.raises(InputError, match=r"x\.h5: mask \(4, 11, 12\)"):
        read_samples(tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-1, r"runs\.ddis\.weight: Input should be greater than or equal to 0 \(got -1\)"),
        ({"poisson": {50: -2, 100: 1}}, r"runs\.ddis\.weight\.poisson\.50: .*greater than or equal to 0 \(got -2\)"),
        ({"poisson": {50: 2, 100: 1, 5: 3}}, r"runs\.ddis\.weight\.poisson\.5: no percent .*accepted: 50, 100"),
        ({"poisson": 1, "helmholz": 2}, r"runs\.ddis\.weight\.helmholz: no problem of the study; accepted: poisson"),
        ({"poisson": {100: 1}}, r"runs\.ddis\.weight has no value for problem 'poisson' at 50 %"),
        ({"poisson": {50: "much", 100: 1}}, r"runs\.ddis\.weight\.poisson\.50: Input should be a valid number"),
    ],
)
def test_weights_per_case_are_checked(weight, message):
    with pytest.raises(InputError, match=message):
        Study.load({**CONFIGURATION, "runs": {"ddis": {"weight": weight}}})


@pytest.mark.parametrize("method", ["ddis", "ddis-gn", "fundps", "diffusionpde"])
def test_noise_levels_that_rise_are_refused(method):
    levels = {"sigma_min": 3, "sigma_max": 2}
    with pytest.raises(InputError, match=rf"runs\.{method}\.sigma_min 3 for problem 'poisson' .*accepted: below sigma_max, 2"):
        Study.load({**CONFIGURATION, "runs": {method: levels}})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("raise RuntimeError('no licence\\nfound')", r"RuntimeError: no licence found \(.*mine\.py, line 1\)"),
        ("import sys\nsys.exit(3)", r"SystemExit: 3 \(.*mine\.py, line 2\)"),
        ("1 / 0", r"ZeroDivisionError: division by zero"),
        ("def f(:", r"SyntaxError: invalid syntax"),
        ("\0", r"(SyntaxError|ValueError): source code .*null bytes"),
        ("x = 1", r"AttributeError: module 'mine' has no attribute 'Thing'"),
    ],
)
def test_a_module_of_the_users_own_that_fails_is_told_in_one_line(tmp_path, monkeypatch, content, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(InputError, match=rf"pde 'mine:Thing' cannot be loaded: {told}") as refused:
        Study.load({**CONFIGURATION, "problems": {"poisson": {"pde": "mine:Thing"}}})
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 14.6 TiB"), torch.OutOfMemoryError("CUDA out of memory.\nTry")]
)
def test_want_of_memory_is_told_in_one_line(monkeypatch, capsys, error):
    def fail(arguments: object) -> None:
        raise error

    monkeypatch.setattr("ddis.cli.dispatch", fail)
    assert main(["schema"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: out of memory: {str(error).splitlines()[0]}") and len(told.splitlines()) == 1


def test_an_option_given_twice_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["tables", "--config", "a.yaml", "--config", "b.yaml"])
    assert "argument --config: given twice; accepted: once" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["schema", "verify"])
def test_a_reader_that_goes_away_is_no_error(tmp_path, monkeypatch, command):
    """`ddis schema | head`: neither a traceback nor a message."""
    monkeypatch.chdir(tmp_path)
    arguments = {"schema": [], "verify": ["bad"]}[command]
    if arguments:
        assert main(["study", "--settings", json.dumps(CONFIGURATION | {"runs": {"exact": {}}})]) == 0
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "ddis", command, *arguments], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_a_terminal_that_cannot_show_a_name_shows_its_codes(tmp_path):
    """File names in Latin-1, on a terminal that knows ASCII alone."""
    name = os.fsencode(tmp_path) + b"/Ger\xe4t.yaml"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "ddis", "study", "--config", name], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr == f"error: {tmp_path}/Ger\\xe4t.yaml cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("n" * 300, "File name too long"),
        ("n" * 250, "File name too long; choose a shorter one"),
        ("file/a.h5", "a part of its path is a file, not a folder"),
    ],
)
def test_a_name_that_the_system_refuses_is_told_in_one_line(tmp_path, monkeypatch, capsys, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["generate", "--pde", "poisson", "--resolution", "8", "--count", "2", "--output", name]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1

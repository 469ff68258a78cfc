"""A problem, a sampler and observation operator from outside run through the stages by `module:Class` in the configuration."""

import numpy as np
import pytest
import torch

from ddis.config import Study
from ddis.data.store import read_pairs, read_samples
from ddis.errors import InputError
from ddis.evaluation.scores import field_scores
from ddis.evaluation.table import error_row
from ddis.stages import generate, sample

CONFIGURATION = {
    "study": "outside",
    "device": "cpu",
    "problems": {"screened": {"pde": "outside:Screened", "screening": 40.0}},
    "data": {"resolution": 12, "train": 64, "validation": 2, "test": 16},
    "fractions": [1.0],
    "observations": {"sparse": {"count": 30, "noise": 0.01}, "diagonal": {"kind": "outside:Diagonal", "noise": 0.01}},
    "runs": {"draw": {"method": "outside:PriorDraw", "samples": 4, "scale": 0.5}, "exact": {"samples": 8}},
}


def test_problem_and_sampler_from_outside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study.load(CONFIGURATION)
    for split in ("train", "test"):
        generate.run(study, "screened", split)
    pairs = read_pairs(study.folder / "data" / "screened" / "test.h5")
    problem = study.make_problem("screened")
    residual = problem.residual(*(torch.from_numpy(f).double() for f in (pairs.coefficient, pairs.solution)))
    assert float(residual.abs().max()) < 1e-3  # float32 storage of a solution of order 1e-3, times 4/h² = 484
    for case in study.cases():
        sample.run(study, **vars(case))
    diagonal = read_samples(study.folder / "samples" / "screened" / "diagonal" / "exact-100.h5")
    assert np.array_equal(diagonal.mask, np.broadcast_to(np.eye(12, dtype=bool), diagonal.mask.shape))
    draw, exact = (read_samples(study.folder / "samples" / "screened" / "sparse" / f"{run}-100.h5") for run in ("draw", "exact"))
    expected = 0.5 * float(problem.prior_spectrum(12).mean().sqrt())
    assert draw.coefficient.std() == pytest.approx(expected, rel=0.15)  # 64 draws, some four modes that matter: 3 standard errors
    assert error_row(field_scores(draw), None)["l2_mean"] > 80
    row = error_row(field_scores(exact), None)
    assert row["l2_mean"] < 50 and row["coverage90"] == pytest.approx(0.9, abs=0.06)
    assert np.isfinite(exact.std).all()


def test_parameters_of_an_outside_problem_are_checked():
    wrong = {**CONFIGURATION, "problems": {"screened": {"pde": "outside:Screened", "screeening": 1}}}
    with pytest.raises(InputError, match=r"parameter 'screeening'.*alpha, tau, aspect, screening"):
        Study.load(wrong)
    with pytest.raises(InputError, match=r"pde 'nowhere:Thing' cannot be loaded"):
        Study.load({**CONFIGURATION, "problems": {"screened": {"pde": "nowhere:Thing"}}})

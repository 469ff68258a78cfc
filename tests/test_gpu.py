"""What a GPU computes is what the CPU computes, up to rounding: samples of every method, and trainings. Skipped without a GPU."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import ddis
from ddis.config import Case, Study
from ddis.data.store import read_samples
from ddis.models.checkpoint import load_tensors
from ddis.stages import generate, pairs, sample, train
from ddis.stages.layout import model_folder, models, samples_path

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU on this machine")

BACKBONE = {"channels": [8, 8], "blocks": [1, 1], "embedding": 8}
TRAINING = {"steps": 20, "batch": 8, "validate_every": 10}
RUNS = {
    "ddis": {"steps": 4, "langevin_steps": 3, "weight": 0.01, "samples": 2},
    "coarse": {"method": "ddis", "steps": 4, "langevin_steps": 2, "weight": 1e-3, "start_resolution": 12, "upsample_at": 2},
    "ddis-gn": {"steps": 3, "samples": 2},
    "ddis-gn-solver": {"method": "ddis-gn", "operator": "solver", "steps": 3, "samples": 2},
    "ddis-dps": {"steps": 4, "weight": 0.01},
    "fundps": {"steps": 4, "weight": 0.01, "residual_weight": 0.01},
    "diffusionpde": {"steps": 5, "weight": 0.01},
    "joint-daps": {"steps": 3, "langevin_steps": 2, "weight": 1e-3},
    "tikhonov": {"samples": 2},
    "prior-mean": {},
    "exact": {"samples": 2, "problems": ["poisson"]},
}
CONFIGURATION = {
    "study": "gpu",
    "problems": {
        "poisson": {"pde": "poisson"},
        "darcy": {"pde": "darcy"},
        "navier-stokes": {"pde": "navier-stokes", "time": 0.05},
    },
    "data": {"resolution": 16, "train": 32, "validation": 8, "test": 2},
    "fractions": [1.0],
    "observations": {"sparse": {"count": 20, "noise": 0.02}},
    "prior": {"backbone": BACKBONE, "training": TRAINING},
    "joint": {"preconditioning": "wiener", "backbone": BACKBONE, "training": TRAINING},
    "operator": {"network": {"modes": 4, "width": 4, "layers": 2}, "training": TRAINING},
    "runs": RUNS,
}
ON_CPU, ON_GPU = (Study.load({**CONFIGURATION, "device": device}) for device in ("cpu", "auto"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Data, and networks trained on the CPU, in the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("gpu"))
        for problem in ON_CPU.problems:
            for split in ("train", "validation", "test"):
                generate.run(ON_CPU, problem, split)
            pairs.run(ON_CPU, problem, "100")
            for model in models(ON_CPU, problem):
                train.run(ON_CPU, problem, model)
        yield


def drawn(study: Study, case: Case) -> np.ndarray:
    """The samples of a case; their file is removed."""
    path = samples_path(study, **vars(case))
    sample.run(study, **vars(case))
    samples = read_samples(path)
    path.unlink()
    return samples.coefficient


@pytest.mark.parametrize("case", ON_CPU.cases(), ids=lambda case: f"{case.problem}-{case.run}")
def test_samples_are_those_of_the_cpu(trained: None, case: Case) -> None:
    """In norm: where a coefficient of two values is cut off, a node near the edge may differ by more."""
    expected, found = drawn(ON_CPU, case), drawn(ON_GPU, case)
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)


def test_loaded_networks_are_moved_to_the_gpu_and_sample_what_they_do_on_the_cpu(trained: None) -> None:
    problem, results = ddis.problem("poisson", resolution=16), []
    for device in ("cpu", "cuda"):
        folders = [model_folder(ON_CPU, "poisson", name) for name in ("prior", "operator-100")]
        parts = ddis.prior.load(folders[0]), ddis.operator.load(folders[1])
        posterior = ddis.Posterior(problem, *parts, ddis.observe.nodes([40, 80, 120]), [0.01, 0.02, 0.01], device=device)
        results.append(posterior.sample("ddis-gn", samples=2, steps=3).samples)
    assert np.linalg.norm(results[1] - results[0]) < 1e-3 * np.linalg.norm(results[0])


@pytest.mark.parametrize("model", ["prior", "joint-100", "operator-100"])
def test_a_training_goes_the_way_of_that_on_the_cpu(trained: None, model: str) -> None:
    """After twenty steps, in which rounding grows: weights within 5 % in norm."""
    path = model_folder(ON_CPU, "poisson", model) / "weights.safetensors"
    kept, (expected, _) = path.read_bytes(), load_tensors(path)
    try:
        train.run(ON_GPU, "poisson", model)
        found, _ = load_tensors(path)
    finally:
        path.write_bytes(kept)
    for name, tensor in expected.items():
        assert float((found[name] - tensor).norm()) <= 0.05 * float(tensor.norm()), name

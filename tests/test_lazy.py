"""What a study is can be asked, and its files be read, without importing what computes."""

import subprocess
import sys
from pathlib import Path

import pytest

from ddis.lazy import torch as lazy_torch

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "neuralop", "azula", "matplotlib", "scipy", "pandas", "mlflow"}


def imported(*arguments: str, folder: Path) -> set[str]:
    """The packages that a call of Python imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def test_a_name_is_found_where_the_module_has_it():
    import torch

    assert lazy_torch.zeros is torch.zeros and lazy_torch.nn.functional is torch.nn.functional
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lazy_torch.no_such_name


@pytest.mark.parametrize("name", ["config/config.yaml", "config/paper.yaml", "config/eci-32.yaml", "tests/tiny.yaml"])
def test_a_configuration_is_checked_without_what_computes(name, tmp_path):
    program = f"from ddis.config import Study; Study.load({str(ROOT / name)!r})"
    assert not HEAVY & imported("-c", program, folder=tmp_path)


@pytest.mark.parametrize(
    ("stage", "needed"),
    [
        ("study", set()),
        ("pairs", set()),
        ("verify", set()),
        ("card", {"matplotlib"}),
        ("tables", set()),
        ("report", set()),
        ("tuning", {"matplotlib"}),
        ("figures", {"matplotlib"}),
        ("paper", {"matplotlib"}),
    ],
)
def test_a_stage_imports_what_it_needs(stage, needed, tmp_path):
    assert HEAVY & imported("-c", f"import ddis.stages.{stage}", folder=tmp_path) <= needed


def test_functions_of_scipy_special_come_without_the_rest_of_it(tmp_path):
    found = imported("-c", "from ddis.lazy import special; special.ndtr(0.0)", folder=tmp_path)
    assert "scipy" in found and not {"scipy.linalg", "numpy.f2py", "numpy.testing"} & found
    program = "from ddis.lazy import special as a; a.ndtr(0.0); from scipy import special, stats; assert a.ndtr is special.ndtr"
    assert "scipy.linalg" in imported("-c", program, folder=tmp_path)


def test_a_step_of_training_imports_no_compiler(tmp_path):
    program = """
import torch
from ddis.models.fourier import SpectralConv
from ddis.training.adam import Adam
network = torch.nn.Linear(2, 1)
network(torch.ones(1, 2)).sum().backward()
Adam(network.parameters()).step(0.1)
"""
    assert not {"torch._dynamo", "wandb.sdk", "matplotlib", "mlflow"} & imported("-c", program, folder=tmp_path)


def test_the_graph_of_jobs_is_made_without_what_computes():
    heavy = HEAVY - {"pandas"}  # which a plug-in of Snakemake's imports
    assert not heavy & imported("-m", "snakemake", "-n", "-s", str(ROOT / "Snakefile"), folder=ROOT)

"""Priors of fields that have a place on a periodic domain are told where each node is."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
import yaml

from ddis.config import Study
from ddis.data.store import write_pairs
from ddis.errors import InputError
from ddis.files import write_json, write_text
from ddis.grid import Grid, square
from ddis.inputs import versions_of
from ddis.models.backbones import Backbone, backbone_of
from ddis.models.checkpoint import save_tensors, weights
from ddis.models.coordinates import WithCoordinates
from ddis.models.ids import ModelId
from ddis.stages.pyfunc import _load_pyfunc
from ddis.training.diffusion import DiffusionSettings

LEVELS = {"channels": [8, 8], "blocks": [1, 1], "embedding": 8}
STUDY = {
    "study": "coordinates",
    "device": "cpu",
    "problems": {name: {"pde": name} for name in ("navier-stokes", "burgers", "poisson")},
    "data": {"resolution": 16, "train": 8, "validation": 4, "test": 2},
    "fractions": [1.0],
    "observations": {"sparse": {"count": 20}},
    "runs": {
        "ddis": {"weight": 1, "problems": ["navier-stokes", "poisson"]},
        "fundps": {"weight": 1, "problems": ["navier-stokes", "poisson"]},
    },
}


def backbone(name: str) -> Backbone:
    return backbone_of({"name": name, **LEVELS})


def shift_error(network: torch.nn.Module, grid: Grid) -> float:
    """How far a network is from commuting with shifts by a quarter of the period, relative to its largest value."""
    x = torch.randn(1, 2, *grid.shape, generator=torch.Generator().manual_seed(0))
    axes = tuple(range(2, x.ndim))
    by = tuple(size // 4 for size in grid.shape)
    with torch.no_grad():
        moved, expected = network(x.roll(by, axes), torch.zeros(1)), network(x, torch.zeros(1)).roll(by, axes)
    return float((moved - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", ["unet", "uno"])
def test_a_network_commutes_with_shifts_of_a_periodic_domain_unless_it_is_told_coordinates(name):
    torch.manual_seed(0)
    plain, told = (
        backbone(name).build(2, square(16, periodic=True)),
        WithCoordinates(backbone(name), 2, square(16, periodic=True)),
    )
    assert shift_error(plain, square(16)) < 1e-5
    assert shift_error(told, square(16)) > 1e-2


@pytest.mark.parametrize(("shape", "periodic"), [((8,), (True,)), ((8, 12), (True, True)), ((8, 12), (False, True))])
def test_coordinates_are_those_of_the_nodes_of_periodic_axes(shape, periodic):
    grid = Grid(shape, periodic, (1.0,) * len(shape))
    network = WithCoordinates(backbone("uno"), 1, grid)
    x = torch.zeros(3, 1, *shape)
    channels = list(network.coordinates(x))
    places = np.meshgrid(*(np.arange(size) / size for size in shape), indexing="ij")
    expected = [wave(2 * np.pi * p) for p, wraps in zip(places, periodic, strict=True) if wraps for wave in (np.sin, np.cos)]
    assert len(channels) == len(expected)
    for channel, wave in zip(channels, expected, strict=True):
        assert channel.shape == x.shape
        assert np.allclose(channel[1, 0], wave, atol=1e-6)
    assert network(x, torch.zeros(3)).shape == x.shape


def test_those_are_told_whose_distribution_shifts_are_not_known_to_leave_alone(tmp_path):
    told = {
        (p, m)
        for p in STUDY["problems"]
        for m in ("prior", "joint-100", "joint-white-100", "flow-100", "operator-100")
        if Study.load(STUDY).located(p, ModelId.parse(m))
    }
    assert told == {(p, m) for p in ("navier-stokes", "burgers") for m in ("joint-100", "joint-white-100", "flow-100")}
    fields = np.zeros((8, 16, 16))
    write_pairs(tmp_path / "train.h5", fields, fields, {"pde": "navier-stokes"})
    own = Study.load({**STUDY, "data": {**STUDY["data"], "files": {"navier-stokes": {"train": str(tmp_path / "train.h5")}}}})
    assert own.located("navier-stokes", ModelId.parse("prior"))
    for study, problem, model in ((Study.load(STUDY), "navier-stokes", "joint-100"), (own, "navier-stokes", "prior")):
        assert versions_of(study, "train", problem=problem, model=model)["coordinates"] == 1
    assert "coordinates" not in versions_of(Study.load(STUDY), "train", problem="poisson", model="joint-100")


def test_an_exported_network_that_was_told_none_is_refused(tmp_path):
    """As releases logged them in MLflow before there were coordinates."""
    study, grid, folder = Study.load(STUDY), square(16, periodic=True), tmp_path / "models" / "navier-stokes" / "joint-100"
    write_text(tmp_path / "config.yaml", yaml.safe_dump(study.resolved()))
    write_json(folder / "model.json", {"normalisation": {}})
    for coordinates in (True, False):
        network = study.joint.build(2, grid, coordinates)
        save_tensors(folder / "weights.safetensors", weights(network), {})
        with nullcontext() if coordinates else pytest.raises(InputError, match=r"safetensors is of a network that this version"):
            _load_pyfunc(str(tmp_path))


def test_a_wave_with_a_place_is_learnt_with_coordinates_alone():
    """Fields sin 2πx and white noise of a tenth of it; the denoiser of pure noise (σ = 20) is their mean.

    What a network without coordinates can do for it is nothing: the mean over all shifts is 0. Error of the mean after 100 steps,
    seed 0: 1 % with coordinates, 100 % without.
    """
    rng = np.random.default_rng(0)
    grid = square(16, periodic=True)
    wave = np.sin(2 * np.pi * np.arange(16) / 16)[:, None] * np.ones(16) * 0.5 * np.sqrt(2)
    fields = torch.from_numpy(wave + 0.05 * rng.standard_normal((16, 1, 16, 16))).float()
    errors = {}
    for coordinates in (True, False):
        torch.manual_seed(0)
        network = DiffusionSettings(backbone=LEVELS).build(1, grid, coordinates)
        optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
        draws = torch.Generator().manual_seed(0)
        for _ in range(100):
            noise = 20 * torch.randn(fields.shape, generator=draws)
            loss = (network(fields + noise, torch.full((16,), 20.0)) - fields).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            mean = network(20 * torch.randn(fields.shape, generator=draws), torch.full((16,), 20.0)).mean(dim=(0, 1)).double()
        errors[coordinates] = float(torch.linalg.norm(mean - torch.from_numpy(wave)) / np.linalg.norm(wave))
    assert errors[True] < 0.05 and errors[False] > 0.9

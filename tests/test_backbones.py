"""Backbones of priors: at any number of nodes, conditioned on the noise level, of the published sizes; and their layers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from trainings import denoiser_trainer, finish, load, save

from ddis.config import Study
from ddis.errors import InputError
from ddis.grid import Grid, square
from ddis.models.backbones import BACKBONES, Backbone, backbone_of
from ddis.models.fourier import HermitianSpectralConv, spectral_conv
from ddis.models.ids import ModelId
from ddis.models.layers import Attention
from ddis.models.normalisation import Normalisation
from ddis.trained import untrained

ROOT = Path(__file__).parents[1]
LEVELS = {"channels": [8, 16], "blocks": [1, 2], "embedding": 8, "attention": [1]}
SMALL = {
    "unet": {"name": "unet", **LEVELS},
    "uno": {"name": "uno", **LEVELS, "modes": 6},
    "uno-low-rank": {"name": "uno", **LEVELS, "modes": 6, "rank": 0.3},
}


def made(name: str) -> Backbone:
    return backbone_of(SMALL[name])


def network(name: str, grid: Grid = square(16), channels: int = 1) -> torch.nn.Module:  # noqa: B008 (frozen)
    torch.manual_seed(0)
    return made(name).build(channels, grid)


def test_every_backbone_of_the_package_is_tried_here():
    assert {settings["name"] for settings in SMALL.values()} == set(BACKBONES.builtin)


@pytest.mark.parametrize(("model", "expected", "published"), [("prior", 83_633_699, 83e6), ("joint-100", 53_934_600, 54e6)])
def test_the_priors_of_the_paper_have_their_published_sizes(model, expected, published):
    study = Study.load(ROOT / "config" / "paper.yaml")
    with torch.device("meta"):
        denoiser = untrained(
            study, "poisson", ModelId.parse(model), dict.fromkeys(("coefficient", "solution"), Normalisation(0, 1))
        )
    count = sum(p.numel() for p in denoiser.parameters())
    assert count == expected and abs(count / published - 1) < 0.05


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("nodes", [(16, 16), (32, 32), (13, 22)])
def test_weights_serve_any_number_of_nodes_and_take_one_level_per_field(name, nodes):
    backbone = network(name, channels=2)
    x, c = torch.randn(3, 2, *nodes, generator=torch.Generator().manual_seed(1)), torch.tensor([-1.0, 0.0, 0.5])
    with torch.no_grad():
        whole = backbone(x, c)
        assert whole.shape == x.shape
        assert torch.allclose(whole[1:2], backbone(x[1:2], c[1:2]), atol=1e-5)  # float32, other sizes of products
        assert not torch.allclose(backbone(x, c.flip(0)), whole, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_a_line_has_all_backbones(name):
    line = Grid((24,), (True,), (1.0,))
    assert network(name, line)(torch.zeros(2, 1, 24), torch.zeros(2)).shape == (2, 1, 24)


@pytest.mark.parametrize("name", SMALL)
def test_periodic_backbones_commute_with_shifts_by_their_coarsest_cell(name):
    """Two levels: by two nodes. On a bounded domain they do not."""
    x, c = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(2)), torch.zeros(1)
    moved = {}
    for periodic in (True, False):
        backbone = network(name, square(16, periodic=periodic))
        with torch.no_grad():
            base = backbone(x, c).roll((4, 6), (2, 3))
            moved[periodic] = float((backbone(x.roll((4, 6), (2, 3)), c) - base).norm() / base.norm())
    assert moved[True] < 1e-5 < 1e-3 < moved[False]


@pytest.mark.parametrize("name", SMALL)
def test_declared_costs_are_those_of_the_products(name):
    """Against torch's own count at the default size, within a factor of 2.5: the formulas leave out the smaller parts."""
    settings = backbone_of({key: value for key, value in SMALL[name].items() if key in ("name", "rank")})
    backbone = settings.build(1, square(32))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.zeros(1, 1, 32, 32), torch.zeros(1))
    assert 0.4 < settings.flops(32) / counter.get_total_flops() < 2.5


@pytest.mark.parametrize("name", SMALL)
def test_a_training_that_was_stopped_ends_with_the_same_weights(name, tmp_path):
    settings = made(name)
    whole, stopped = finish(denoiser_trainer(backbone=settings)), denoiser_trainer(backbone=settings)
    for _ in stopped.run(lambda: 15 if stopped.progress.step == 4 else 0):
        pass
    save(stopped, tmp_path / "stopped")
    resumed = finish(load(denoiser_trainer(backbone=settings), tmp_path / "stopped"))
    assert all(torch.equal(one, other) for one, other in zip(whole.best.values(), resumed.best.values(), strict=True))
    history = [row["validation_loss"] for row in whole.progress.history]
    assert history[-1] < history[0]


@pytest.mark.parametrize("modes", [(8, 8), (6, 8), (8,)])
def test_a_convolution_of_low_rank_is_that_with_its_weights_multiplied_out(modes):
    torch.manual_seed(0)
    low = spectral_conv(6, 5, modes, rank=0.4)
    dense = HermitianSpectralConv(6, 5, modes)
    weight = low.weight.to_tensor().detach()
    assert sum(p.numel() for p in low.weight.parameters()) < 2 * weight.numel()
    dense.weight.tensor.data = torch.view_as_real(weight) if not dense.weight.tensor.is_complex() else weight
    dense.bias.data = low.bias.data
    x = torch.randn(2, 6, *(12, 10)[: len(modes)])
    for nodes in (x.shape[2:], tuple(n // 2 for n in x.shape[2:])):
        assert torch.allclose(low(x, nodes), dense(x, nodes), atol=1e-5)


def test_attention_is_its_formula_and_knows_no_places():
    torch.manual_seed(0)
    layer = Attention(4, 4).double()
    torch.nn.init.normal_(layer.out.weight)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    z = layer.norm(x).flatten(2).numpy(force=True)
    (w_qkv, b_qkv), (w_out, b_out) = (
        (part.weight[:, :, 0].numpy(force=True), part.bias.numpy(force=True)[:, None])
        for part in (layer.query_key_value, layer.out)
    )
    for field, own, out in zip(z, x.numpy().reshape(2, 4, 15), layer(x).numpy(force=True).reshape(2, 4, 15), strict=True):
        q, k, v = np.split(w_qkv @ field + b_qkv, 3)
        weights = np.exp(q.T @ k / 2)
        expected = own + w_out @ (v @ (weights / weights.sum(axis=1, keepdims=True)).T) + b_out
        np.testing.assert_allclose(out, expected, atol=1e-12)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    shuffled = x.flatten(2)[..., order].view_as(x)
    assert torch.allclose(layer(shuffled).flatten(2), layer(x).flatten(2)[..., order])


def test_attention_changes_no_other_weight_of_the_unet():
    """Untrained it gives its input: with it the network is the same function."""
    plain = {**SMALL["unet"], "attention": []}
    torch.manual_seed(0)
    without = backbone_of(plain).build(1, square(16))
    x, c = torch.randn(2, 1, 16, 16), torch.zeros(2)
    attends = network("unet")
    with torch.no_grad():
        for layer in attends.modules():
            if isinstance(layer, Attention):
                layer.out.bias.zero_()
        assert torch.allclose(attends(x, c), without(x, c), atol=1e-6)
    assert sum(isinstance(layer, Attention) for layer in attends.modules()) == 2


@pytest.mark.parametrize("attention", [[2], [0, 0], [-1]])
def test_levels_that_are_not_there_are_refused(attention):
    with pytest.raises(InputError, match=r"attention"):
        backbone_of({**SMALL["uno"], "attention": attention})


@pytest.mark.parametrize(("group", "sees"), [(1, False), (4, True)])
def test_channels_that_are_normalised_one_by_one_lose_the_mean_of_a_field(group, sees):
    """On a periodic grid: what a constant adds to the field adds as much to the output, whatever the field, if it is lost."""
    torch.manual_seed(0)
    backbone = backbone_of({"name": "unet", "channels": [16], "blocks": [1], "embedding": 8, "group": group})
    net = backbone.build(1, square(8, periodic=True))
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x, c = torch.randn(2, 1, 8, 8), torch.zeros(2)
    with torch.no_grad():
        added = net(x + 1, c) - net(x, c)
    differs = float((added - added.mean()).norm() / added.norm())
    assert differs > 1e-2 if sees else differs < 1e-5

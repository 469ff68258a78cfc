"""Denoiser, operator and checkpoints against closed forms, dense linear algebra and the library."""

import copy
import pickle

import numpy as np
import pytest
import torch
from azula.nn.unet import UNet as LibraryUNet
from neuralop.layers.spectral_convolution import SpectralConv
from neuralop.models import FNO as LibraryFNO
from torch import nn

from ddis.errors import DamagedError, InputError
from ddis.fields.bases import basis
from ddis.grid import Space, square
from ddis.models.architectures.fno import FNO
from ddis.models.backbones.unet import UNet
from ddis.models.checkpoint import load_tensors, save_tensors, weights
from ddis.models.denoiser import SIGMA_DATA, GaussianDenoiser
from ddis.models.edm import EDMDenoiser
from ddis.models.fourier import HermitianSpectralConv, PointwiseConv, transforms, use_pointwise_products
from ddis.models.levels import GROUPS
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.models.unet import ModulatedUNet
from ddis.models.wrapped import wrapped


class Recorder(nn.Module):
    """A backbone that keeps its input and gives a fixed output."""

    def __init__(self, output):
        super().__init__()
        self.output, self.seen = output, None

    def forward(self, x, c_noise):
        self.seen = (x, c_noise)
        return self.output(x)


def test_preconditioning_gives_unit_variance_input_and_target():
    """EDM, appendix B.6: c_in makes the input, and (x - c_skip x_t)/c_out the target, of variance 1 (5 standard errors)."""
    torch.manual_seed(0)
    for s in (0.02, 0.5, 7.0):
        x, n = SIGMA_DATA * torch.randn(200, 1, 32, 32), torch.randn(200, 1, 32, 32)
        sigma = torch.full((200,), s)
        recorder = Recorder(torch.zeros_like)
        skipped = EDMDenoiser(recorder)(x + s * n, sigma)
        seen, c_noise = recorder.seen
        tolerance = 5 * np.sqrt(2 / x.numel())
        assert abs(float(seen.var()) - 1) < tolerance
        assert torch.allclose(c_noise, sigma.log() / 4)
        c_out = float((EDMDenoiser(Recorder(torch.ones_like))(x + s * n, sigma) - skipped).mean())
        assert abs(float(((x - skipped) / c_out).var()) - 1) < tolerance


def test_gaussian_denoiser_is_the_posterior_mean():
    """Against dense linear algebra: E[x | x + s n] = Cx (Cx + s² Cn)⁻¹ x_t."""
    modes = basis("cosine", 6)
    rng = np.random.default_rng(0)
    c, k = rng.uniform(0.1, 2, (6, 6)), rng.uniform(0.5, 1.5, (6, 6))
    functions = modes.inverse(torch.eye(36, dtype=torch.float64).reshape(36, 6, 6)).flatten(1).numpy()
    cx, cn = (functions.T @ np.diag(v.ravel()) @ functions for v in (c, k))
    x_t, s = rng.standard_normal(36), 0.7
    expected = cx @ np.linalg.solve(cx + s**2 * cn, x_t)
    denoiser = GaussianDenoiser(modes, torch.from_numpy(c), torch.from_numpy(k))
    found = denoiser(torch.from_numpy(x_t).reshape(1, 1, 6, 6), torch.tensor([s]))
    assert np.allclose(found.flatten(), expected, atol=1e-7)


@pytest.mark.parametrize("size", [16, 24])
def test_hermitian_convolution_equals_the_library_where_its_fft_is_lenient(size):
    """On a CPU, irfftn ignores the parts that must vanish: both give the same. (At odd sizes the library shifts wrongly.)"""
    theirs, ours = SpectralConv(3, 2, (8, 8)), HermitianSpectralConv(3, 2, (8, 8))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, size, size)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("size", [15, 16])
def test_hermitian_convolution_commutes_with_translation(size):
    torch.manual_seed(0)
    convolution = HermitianSpectralConv(2, 2, (9, 9), bias=False)
    x = torch.randn(1, 2, size, size)
    shifted = convolution(torch.roll(x, (3, 5), dims=(-2, -1)))
    assert torch.allclose(torch.roll(convolution(x), (3, 5), dims=(-2, -1)), shifted, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(16, 16, 16, 9), (15, 12, 7, 7), (12, 15, 12, 8)])
def test_transforms_are_those_of_a_real_field(height, width, rows, columns):
    """Against numpy's transforms; the inverse drops what a real field cannot have, in the zero and the Nyquist column."""
    analyse, compose = transforms(height, width, rows, columns, torch.float64, torch.device("cpu"))
    rng = np.random.default_rng(0)
    x, kept = rng.standard_normal((height, width)), rng.standard_normal((rows, columns, 2)) @ [1, 1j]
    frequencies = np.arange(rows) - rows // 2
    expected = np.fft.rfft2(x, norm="forward")[frequencies, :columns]
    parts = (torch.from_numpy(x) @ analyse[0]).chunk(2, dim=-1)
    assert np.allclose(analyse[1] @ torch.complex(*parts), expected, atol=1e-14)
    full = np.zeros((height, width // 2 + 1), dtype=complex)
    full[frequencies, :columns] = kept
    half = np.fft.ifft(full, axis=0, norm="forward")
    own = [0] if width % 2 else [0, -1]
    half[:, own] = half[:, own].real
    found = compose[0] @ torch.from_numpy(kept)
    assert np.allclose(torch.cat([found.real, found.imag], dim=-1) @ compose[1], np.fft.irfft(half, width, norm="forward"))


def test_pointwise_products_change_no_value_and_no_name():
    """All of the operator's convolutions are replaced; names and values of the parameters, and the output, are the library's."""
    torch.manual_seed(0)
    library = LibraryFNO(n_modes=(4, 4), in_channels=1, out_channels=1, hidden_channels=6, n_layers=2)
    ours = copy.deepcopy(library)
    use_pointwise_products(ours)
    assert all(isinstance(m, PointwiseConv) for m in ours.modules() if isinstance(m, nn.Conv1d))
    state = library.state_dict()
    assert ours.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items() if torch.is_tensor(value))
    x = torch.randn(2, 1, 16, 16)
    assert torch.allclose(ours(x), library(x), atol=1e-6)


def operator(periodic: bool = False) -> NeuralOperator:
    torch.manual_seed(0)
    scales = Normalisation(0.3, 2.0), Normalisation(-1.0, 0.01)
    return NeuralOperator(FNO(modes=4, width=6, layers=2), (Space(square(16, periodic)),) * 2, *scales)


def test_operator_works_in_physical_units_and_has_a_gradient():
    network = operator()
    a = torch.randn(2, 16, 16, requires_grad=True)
    u = network(a)
    normalised = network.forward_normalised((a - 0.3) * SIGMA_DATA / 2.0)
    assert torch.allclose(u, normalised * (0.01 / SIGMA_DATA) - 1.0, atol=1e-6)
    weight, direction, step = torch.randn_like(u), torch.randn_like(a), 0.05
    slope = float((torch.autograd.grad((weight * u).sum(), a)[0] * direction).sum())
    with torch.no_grad():
        change = network(a + step * direction).double() - network(a - step * direction).double()
    assert slope == pytest.approx(float((weight * change).sum()) / (2 * step), rel=0.01)


def test_periodic_operator_commutes_with_translation_but_for_its_grid_features():
    """Where the domain is bounded, padding breaks the symmetry also without the coordinates."""
    periodic, bounded = operator(periodic=True), operator()
    x = torch.randn(2, 16, 16)

    def change(network: NeuralOperator) -> float:
        """Between shifting the field before and after, relative to the field's own spread."""
        with torch.no_grad():
            after = torch.roll(network.forward_normalised(x), (3, 5), dims=(-2, -1))
            return float((network.forward_normalised(torch.roll(x, (3, 5), dims=(-2, -1))) - after).std() / after.std())

    assert change(periodic) > 1e-2
    for network in (periodic, bounded):
        with torch.no_grad():
            network.fno.lifting.fcs[0].weight[:, 1:] = 0  # of the two coordinates, which follow the field's channel
    assert change(periodic) < 1e-5 and change(bounded) > 1e-2


def test_backbone_takes_one_level_per_field():
    torch.manual_seed(0)
    backbone = UNet(channels=(8, 8), blocks=(1, 1), embedding=8).build(1, square(16))
    x, c = torch.randn(3, 1, 16, 16), torch.tensor([-1.0, 0.0, 0.5])
    whole = backbone(x, c)
    assert torch.allclose(whole[1:2], backbone(x[1:2], c[1:2]), atol=1e-5)
    assert not torch.allclose(backbone(x, c.flip(0)), whole, atol=1e-4)


def test_checkpoint_round_trip_and_what_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    network = operator()
    save_tensors(path, weights(network), {"configuration": "abc"})
    tensors, metadata = load_tensors(path, "abc")
    assert metadata["configuration"] == "abc"
    assert all(torch.equal(tensors[name], t) for name, t in weights(network).items())
    with pytest.raises(InputError, match="another configuration"):
        load_tensors(path, "xyz")
    with pytest.raises(InputError, match="does not exist"):
        load_tensors(tmp_path / "none.safetensors")
    whole = path.read_bytes()
    for said, content in (("is truncated: it has", whole[: len(whole) // 2]), ("is not a safetensors file", b"\x80\x04pickled")):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=said):
            load_tensors(path)


@pytest.mark.parametrize(("nodes", "periodic"), [(16, False), (24, False), (18, False), (16, True), (18, True)])
def test_the_unet_computes_what_the_library_does_with_its_gradients(nodes, periodic):
    """Sums of float32 in another order: relative 1e-6. With 18 nodes, halved twice, the library's own forward is called."""
    torch.manual_seed(0)
    network = ModulatedUNet(2, square(nodes, periodic), (8, 16, 32), (1, 2, 1), 16, 0.0, 1).to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    size = {"hid_channels": (8, 16, 32), "hid_blocks": (1, 2, 1), "mod_features": 16, "norm": "group", "groups": GROUPS}
    library = LibraryUNet(2, 2, **size, periodic=periodic)
    library.load_state_dict(network.net.state_dict())
    x, level = torch.randn(3, 2, nodes, nodes, requires_grad=True), torch.randn(3)

    def results(net):
        out = net(x, network.embedding(level))
        return [out, *torch.autograd.grad(out.square().sum(), [x, *net.parameters()])]

    for quick, expected in zip(results(network.net), results(library), strict=True):
        assert (quick - expected).norm() <= 1e-5 * expected.norm()


def test_a_unet_of_a_periodic_domain_can_be_copied_and_pickled():
    network, x = ModulatedUNet(2, square(8, True), (8, 8), (1, 1), 8, 0.0, 4), torch.randn(1, 2, 8, 8)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(x, torch.zeros(1)), network(x, torch.zeros(1)))


def test_wrapping_is_the_librarys_circular_padding_and_can_be_differentiated_twice():
    for shape in ((2, 3, 5, 4), (1, 2, 1, 3)):  # of one field and one row, views are dense, too
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
        assert torch.equal(wrapped(x), torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular"))
        assert wrapped(x).is_contiguous(memory_format=torch.channels_last)
        assert torch.autograd.gradcheck(wrapped, x) and torch.autograd.gradgradcheck(wrapped, x)

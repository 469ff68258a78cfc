"""bfloat16 and torch.compile: the same training up to their rounding, with float32 weights; off unless chosen."""

import copy
import shutil

import pytest
import torch
from trainings import denoiser_trainer, finish, operator_trainer

from ddis.errors import InputError
from ddis.grid import square
from ddis.models.backbones.unet import UNet
from ddis.training.acceleration import accelerate
from ddis.training.diffusion import DiffusionSettings
from ddis.training.loop import Trainer
from ddis.training.settings import TrainingSettings

LONGER = {"steps": 40, "batch": 4, "warmup": 2, "validate_every": 40, "learning_rate": 1e-2}
PLAIN, HALF = (TrainingSettings(**LONGER, precision=precision) for precision in ("float32", "bfloat16"))
ONE_LEVEL = UNet(channels=(8,), blocks=(1,), embedding=8, dropout=0.1)
COMPILED = TrainingSettings(steps=3, batch=4, warmup=2, validate_every=3, compile=True)


def losses(trainer: Trainer) -> list[float]:
    """Of every step."""
    found = []
    loss = trainer.loss
    trainer.loss = lambda indices, step: (found.append(value := loss(indices, step)), value)[1]
    finish(trainer)
    return [float(value.detach()) for value in found]


@pytest.mark.parametrize("make", [denoiser_trainer, operator_trainer])
def test_bfloat16_trains_nearly_as_float32(make):
    """Rounding of 2^-9 in the network. Found over 40 steps: losses within 0.15 % on average, weights within 4.2 % in norm."""
    torch.set_num_threads(1)
    plain, half = make(settings=PLAIN), make(settings=HALF)
    expected, found = losses(plain), losses(half)
    assert found[0] != expected[0] and found[0] == pytest.approx(expected[0], rel=1e-2)
    assert sum(found[-10:]) < 0.7 * sum(found[:10])
    assert sum(found) == pytest.approx(sum(expected), rel=0.01)
    tensors, _ = half.state()
    assert {tensor.dtype for tensor in tensors.values()} <= {torch.float32, torch.complex64}
    for name, tensor in plain.model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            assert float((half.model.state_dict()[name] - tensor).norm()) < 0.1 * float(tensor.norm()), name


def test_spectral_convolution_computes_in_float32_under_autocast():
    convolution = operator_trainer().model.fno.fno_blocks.convs[0]
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = convolution(x)
    assert found.dtype == torch.float32 and torch.equal(found, convolution(x.float()))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and there is no g++")
def test_a_compiled_training_is_the_same_up_to_rounding(tmp_path, monkeypatch):
    """Dropout included. Found: losses that differ by 1.2e-7."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    plain = denoiser_trainer(settings=COMPILED.model_copy(update={"compile": False}), backbone=ONE_LEVEL)
    compiled = denoiser_trainer(settings=COMPILED, backbone=ONE_LEVEL)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-5)
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        ({"precision": "bfloat16"}, 0.02),
        pytest.param({"compile": True}, 1e-5, marks=pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")),
    ],
)
def test_networks_that_wrap_and_are_told_coordinates_are_accelerated(change, tolerance, tmp_path, monkeypatch):
    """Output and gradients. Found: differences of at most 0.93 % in bfloat16, 4e-7 compiled."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    torch.manual_seed(0)
    backbone = UNet(channels=(8, 8), blocks=(1, 1), embedding=8)
    plain = DiffusionSettings(backbone=backbone).build(1, square(16, periodic=True), coordinates=True)
    quick = copy.deepcopy(plain)
    accelerate(quick.backbone, TrainingSettings(**change))
    x, sigma = torch.randn(1, 1, 16, 16), torch.ones(1)
    for network in (plain, quick):
        network(x, sigma).square().mean().backward()
    pairs = [(plain(x, sigma), quick(x, sigma))]
    pairs += [(own.grad, other.grad) for own, other in zip(plain.parameters(), quick.parameters(), strict=True)]
    for expected, found in pairs:
        assert float((found - expected).norm()) < tolerance * float(expected.norm())
    assert not torch.equal(*pairs[0])


def test_compilation_without_a_compiler_is_refused_before_the_training(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"training.compile: there is no C\+\+ compiler 'no-such-compiler'"):
        operator_trainer(settings=COMPILED)

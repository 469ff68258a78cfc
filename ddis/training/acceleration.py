"""Quicker steps on a GPU, at other rounding: bfloat16 arithmetic and compilation of the trained network."""

import os
import shutil

import torch
from torch import nn

from ddis.errors import InputError
from ddis.training.settings import TrainingSettings


def accelerate(network: nn.Module, settings: TrainingSettings) -> None:
    """Makes calls of `network` use the settings' precision and compilation, in place; weights and their names stay as they are.

    Under `bfloat16` convolutions and matrix products are computed in it and what comes out may be; weights, their average and
    the optimiser stay float32. Raises InputError for `compile` without a C++ compiler.
    """
    if settings.precision == "bfloat16":
        device = next(network.parameters()).device.type
        network.forward = torch.autocast(device, torch.bfloat16)(network.forward)
    if settings.compile:
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise InputError(f"training.compile: there is no C++ compiler {compiler!r}; install one, or set compile: false")
        if torch.are_deterministic_algorithms_enabled():  # tells the compiler too
            torch.use_deterministic_algorithms(True, warn_only=torch.is_deterministic_algorithms_warn_only_enabled())
        network.compile(options={"fallback_random": True})  # dropout draws as without compilation

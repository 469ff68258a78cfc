"""The gradient that guides a chain at one noise level, of prior and operator as they are, without a sampler.

The loss is the root mean square misfit of the observed values, on normalised fields: its gradient is J' r / (|r| sqrt(m)) of a
misfit r in R^m, so that its norm says how much of the misfit's direction arrives, however large the misfit is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ddis.lazy import torch
from ddis.sampling.base import Batch

if TYPE_CHECKING:
    from torch import Tensor

Through = Literal["denoiser", "operator"]


def guidance_gradient(batch: Batch, x_t: Tensor, sigma: float, through: Through) -> Tensor:
    """Gradient [B, C, *nodes] of the misfit of D(x_t; σ), or of G(D(x_t; σ)), at the noisy fields x_t [B, C, *nodes].

    through  denoiser: with respect to x_t, as in DPS; operator: with respect to the denoiser's output, as in DAPS, where a prior
             of (coefficient, solution) gives the coefficient none
    """
    assert batch.prior is not None
    start = x_t.detach().requires_grad_(through == "denoiser")
    with torch.enable_grad():
        x0_hat = batch.prior(start, torch.full((len(x_t),), sigma, device=x_t.device))
        if through == "operator":
            start = x0_hat = x0_hat.detach().requires_grad_()
        joint = x0_hat.shape[1] > batch.spaces[0].channels
        predicted = batch.predict_joint(x0_hat) if joint else batch.predict(batch.free(x0_hat))
        loss = batch.observation.misfit(predicted).square().mean(dim=1).sqrt()
        return torch.autograd.grad(loss.sum(), start)[0].detach()

"""What is known of a field before anything was observed."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ddis.fields.mixture import Mixture
from ddis.fields.noise import Noise
from ddis.models.denoiser import Denoiser
from ddis.models.normalisation import Normalisation


@dataclass(frozen=True)
class Prior:
    """A prior of the free field b (see Problem), or of (b, solution) jointly; normalised.

    denoise          x0_hat [B, C, *shape] of x_t, at levels of `noise`; None: mean and spectrum are all that is known. Of a flow
                     the velocity of x_t, at times
    noise            of the diffusion
    coefficient      normalisation of b
    mean, spectrum   [*shape] of b, and variance of its modes in the problem's basis; spectrum 0: not known
    solution         normalisation of the solution, the second channel of a joint prior; None: a prior of b alone
    mixture          the closed form of b, where it is a mixture of Gaussian fields; None: it is not, or not known
    kind             what methods ask for as their prior: coefficient, joint, flow
    examples         solutions [N, *shape] that a joint prior was trained on; None: not at hand
    excess           of a trained denoiser's error over that of the best linear one, by noise level σ; None: not known
    """

    denoise: Denoiser | None
    noise: Noise
    coefficient: Normalisation
    mean: Tensor
    spectrum: Tensor
    solution: Normalisation | None = None
    mixture: Mixture | None = None
    examples: Tensor | None = None
    excess: Mapping[float, float] | None = None
    kind: str = "coefficient"

    @property
    def joint(self) -> bool:
        return self.solution is not None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.spectrum.shape)

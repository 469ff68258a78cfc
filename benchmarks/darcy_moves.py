"""Is it the sampler or the prior that keeps `ddis-gn` from the posterior where the coefficient has two values?

    snakemake --cores all --configfile benchmarks/darcy_moves.yaml
    python benchmarks/darcy_moves.py

Moves that know no Gaussian approximation, no derivative and no variance in place of the kernel: add noise to a sample,
x = x0 + σ n, draw x0' given x by the reverse diffusion, and accept it with probability min(1, p(y | x0') / p(y | x0)), the
likelihood through the solver. As x0 and x0' are alike given x, moves leave the posterior of the denoiser's own prior as it is,
but for the steps of the reverse diffusion. So chains end there wherever they begin, and what then separates them from the
reference is the prior.

They begin at samples of `ddis-gn-solver`, and at draws of the reference. At some numbers of moves: five distances to the other
half of the reference, means over the fields, in brackets how many times the floor, which is what those draws have; the misfit,
minus the logarithm of the kernel; and the share of nodes with the larger value. Last the prior itself: this share's standard
deviation among training fields and among samples of the prior, by the same reverse diffusion. Writes
benchmarks/results/darcy_moves.md. Ten minutes on one core, without the study.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from posteriorbench_gap import beside, far
from torch import Tensor

from ddis.config import Case, Study
from ddis.data.references import References, read_references
from ddis.files import write_text
from ddis.models.denoiser import Denoiser
from ddis.observe.likelihood import negative_log, worth
from ddis.posterior import Posterior
from ddis.randomness import Generators, generator
from ddis.sampling.base import Batch
from ddis.sampling.schedules import heun_step, karras_schedule
from ddis.stages.common import load_pairs, settle
from ddis.stages.layout import reference_path
from ddis.stages.sampler import Sampler, observe
from ddis.stages.tables import read_case
from ddis.text import pipe_table

RESULT = Path(__file__).parent / "results" / "darcy_moves.md"
CASE = Case("darcy", "kernel", "ddis-gn-solver", "100")
CHAINS = 16  # of each field
MOVES = ((0.3, 8), (0.7, 12), (1.0, 12))  # σ, and steps of the reverse diffusion, by turns
SHOWN = (0, 12, 48)
SMALLEST, LARGEST = 0.02, 10.0  # σ at which the reverse diffusion ends, and begins for samples of the prior
PRIOR_SAMPLES, PRIOR_STEPS = 256, 40
SHOWS = (
    f"{CHAINS} chains of each field of benchmarks/darcy_moves.yaml; share: mean of each field; ± mean of the standard deviations."
)
HEAD = ["begin", "moves", "accepted", "mean", "std", "MMD", "SWD", "spectrum", "misfit", "share of the larger value"]


def reverse(denoiser: Denoiser, draw_noise: Callable[[], Tensor], x: Tensor, sigma: float, steps: int) -> Tensor:
    """x0 [B, 1, *nodes] given x at the level σ, by the stochastic reverse diffusion; 2 steps - 1 evaluations.

    A step from σ to s is one of the ODE, Heun's, to s²/σ, and noise back up to s: as much as the diffusion takes away on the way.
    (With as few steps, draws about D in place of the ODE's steps would take variance away from the fields.)
    """

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        return torch.cat([denoiser(*parts) for parts in zip(x.split(64), level.split(64), strict=True)])

    for level, following in pairwise(map(float, karras_schedule(sigma, SMALLEST, steps))):
        lower = following**2 / level
        x, _ = heun_step(denoise, x, level, lower)
        if following:
            x = x + math.sqrt(following**2 - lower**2) * draw_noise()
    return x


@dataclass
class Chains:
    """States x0 [B, *shape] of all fields, and minus the logarithm of their likelihood [B]."""

    posterior: Posterior
    batch: Batch
    x0: Tensor
    misfit: Tensor
    accepted: int = 0

    @classmethod
    def begin(cls, sampler: Sampler, coefficient: np.ndarray, stream: str) -> "Chains":
        """At coefficients [n, K, *shape] in physical units."""
        n, count = coefficient.shape[:2]
        posterior = sampler.posterior(observe(sampler.study, CASE, "test", np.arange(n)))
        generators = [generator(sampler.study.seed, stream, field, chain) for field in range(n) for chain in range(count)]
        batch = posterior.batch(sampler.method, slice(0, n), generators)
        fields = torch.from_numpy(coefficient.reshape(-1, *coefficient.shape[2:]))
        x0 = posterior.coefficient.normalise(fields).float()
        return cls(posterior, batch, x0, misfit(batch, x0))

    def move(self, sigma: float, steps: int) -> None:
        batch = self.batch
        x = self.x0[:, None] + sigma * batch.draw_noise()
        assert batch.prior is not None
        proposed = batch.free(reverse(batch.prior, batch.draw_noise, x, sigma, steps))
        its_misfit = misfit(batch, proposed)
        uniform = torch.tensor([rng.random() for rng in batch.generators], dtype=torch.float64)
        moved = uniform.log() < self.misfit - its_misfit
        self.x0 = torch.where(moved[:, None, None], proposed, self.x0)
        self.misfit = torch.where(moved, its_misfit, self.misfit)
        self.accepted += int(moved.sum())

    def coefficient(self, fields: int) -> np.ndarray:
        """[n, K, *shape] in physical units."""
        found = self.posterior.physical(self.x0).double().numpy()
        return np.asarray(found.reshape(fields, -1, *found.shape[1:]))


@torch.no_grad()
def misfit(batch: Batch, x0: Tensor) -> Tensor:
    """Minus the logarithm of the kernel [B]; a method's variance is what the kernel's is worth (`ddis.observe.likelihood`)."""
    seen = batch.observation
    values = torch.cat([batch.operator(part) for part in x0.split(256)])
    residual = seen.misfit(seen.take(seen.functionals.stack(values, None))).double()
    variance = (seen.variance / worth("mean-absolute", seen.values.shape[1])).repeat_interleave(len(x0) // len(seen.values), 0)
    return negative_log("mean-absolute", residual, variance)


def larger_share(fields: np.ndarray) -> np.ndarray:
    """Share [...] of the nodes of fields [..., S, S] that are nearer to the larger of the two values."""
    return np.asarray((fields > (fields.min() + fields.max()) / 2).mean(axis=(-2, -1)))


def share_text(samples: np.ndarray) -> str:
    """Of samples [n, K, S, S]: the mean of each field; the standard deviation in a field, on average over them."""
    share = larger_share(samples)
    return f"{', '.join(f'{mean:.3f}' for mean in share.mean(axis=1))}; ± {share.std(axis=1).mean():.3f}"


def trace(sampler: Sampler, begin: np.ndarray, name: str, references: References, floor: np.ndarray) -> list[list[str]]:
    """Rows of chains that begin at coefficients [n, K, S, S]."""
    chains, rows, fields = Chains.begin(sampler, begin, f"darcy moves {name}"), [], len(begin)
    for done in range(max(SHOWN) + 1):
        if done:
            chains.move(*MOVES[done % len(MOVES)])
        if done in SHOWN:
            found = chains.coefficient(fields)
            distances = beside(far(found, references, references.attributes["coefficient_std"]), floor)
            share = f"{chains.accepted / (done * len(chains.x0)):.2f}" if done else ""
            rows.append([name, str(done), share, *distances, f"{chains.misfit.mean():.2f}", share_text(found)])
            print(" | ".join(rows[-1]), flush=True)
    return rows


def prior_samples(sampler: Sampler) -> np.ndarray:
    """[PRIOR_SAMPLES, S, S] in physical units: from noise and a Gaussian field of the prior's spectrum, which it hides."""
    generators: Generators = [generator(sampler.study.seed, "darcy moves prior", place) for place in range(PRIOR_SAMPLES)]
    posterior = sampler.posterior(observe(sampler.study, CASE, "test", np.arange(1)))
    batch = posterior.batch(sampler.method, slice(0, 1), generators)
    field = batch.basis.inverse(batch.spectrum.sqrt() * batch.draw_white(*batch.shape)).float()
    assert batch.prior is not None
    found = reverse(batch.prior, batch.draw_noise, field[:, None] + LARGEST * batch.draw_noise(), LARGEST, PRIOR_STEPS)
    return np.asarray(posterior.physical(batch.free(found)).double().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("results/darcy-moves"), help="folder of the study")
    study = Study.in_folder(parser.parse_args().study)
    with settle(study), torch.no_grad():
        sampler = Sampler(study, CASE, study.run_for(CASE))
        references = read_references(reference_path(study, CASE.problem, CASE.observation))
        draws, half = references.coefficient, references.coefficient.shape[1] // 2
        floor = far(draws[:, :CHAINS], references, references.attributes["coefficient_std"])
        rows = [["the reference's other half", "", "", *(f"{value:.3f}" for value in floor), "", share_text(draws[:, half:])]]
        for name, begin in ((f"`{CASE.run}`", read_case(study, CASE).coefficient), ("the reference", draws)):
            rows += trace(sampler, begin[:, :CHAINS], name, references, floor)
        data = load_pairs(study, CASE.problem, "train").coefficient
        spreads = [f"{larger_share(fields).std():.4f}" for fields in (data, prior_samples(sampler))]
        prior = f"{spreads[0]} of training fields, {spreads[1]} of samples of the prior"
        spread = f"Standard deviation of the share of the larger value: {prior}."
        write_text(RESULT, f"{SHOWS}\n\n{pipe_table(HEAD, rows)}\n\n{spread}\n")
        print(spread)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

"""Is it the sampler or the prior that keeps `ddis-gn` from the posterior where the coefficient has two values?

    snakemake --cores all --configfile benchmarks/darcy_moves.yaml
    python benchmarks/darcy_moves.py

Moves by noise and reverse diffusion (`ddis.sampling.renoise`), through the solver, know no Gaussian approximation, no derivative
and no variance in place of the kernel, and leave the posterior of the denoiser's own prior as it is. So chains end there
wherever they begin, and what then separates them from the reference is the prior.

They begin at samples of `ddis-gn-solver`, and at draws of the reference. At some numbers of moves: five distances to the other
half of the reference, means over the fields, in brackets how many times the floor, which is what those draws have; the misfit,
minus the logarithm of the kernel; and the share of nodes with the larger value. Last the prior itself: this share's standard
deviation among training fields and among samples of the prior, by the same reverse diffusion. Writes
benchmarks/results/darcy_moves.md. Ten minutes on one core, without the study.
"""

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from posteriorbench_gap import beside, far
from torch import Tensor

from ddis.config import Case, Study
from ddis.data.references import References, read_references
from ddis.files import write_text
from ddis.posterior import Posterior
from ddis.randomness import generator
from ddis.sampling.base import Batch
from ddis.sampling.renoise import renoise, reverse
from ddis.stages.common import load_pairs, settle
from ddis.stages.layout import reference_path
from ddis.stages.sampler import Sampler, observe
from ddis.stages.tables import read_case
from ddis.text import pipe_table

RESULT = Path(__file__).parent / "results" / "darcy_moves.md"
CASE = Case("darcy", "kernel", "ddis-gn-solver", "100")
CHAINS = 16  # of each field
LEVELS = (0.3, 0.7, 1.0)
SHOWN = (0, 12, 48)
LARGEST, PRIOR_STEPS = 10.0, 40  # σ at which the reverse diffusion begins for samples of the prior, and its steps
PRIOR_SAMPLES = 256
SHOWS = (
    f"{CHAINS} chains of each field of benchmarks/darcy_moves.yaml; share: mean of each field; ± mean of the standard deviations."
)
HEAD = ["begin", "moves", "accepted", "mean", "std", "MMD", "SWD", "spectrum", "misfit", "share of the larger value"]


@dataclass(frozen=True)
class Chains:
    """A posterior, and chains of all its fields."""

    posterior: Posterior
    batch: Batch

    @classmethod
    def of(cls, sampler: Sampler, fields: int, count: int, stream: str) -> "Chains":
        posterior = sampler.posterior(observe(sampler.study, CASE, "test", np.arange(fields)))
        seed, numbers = sampler.study.seed, product(range(fields), range(count))
        generators = [generator(seed, stream, field, chain) for field, chain in numbers]
        return cls(posterior, posterior.batch(sampler.method, slice(None), generators))

    def normalised(self, coefficient: np.ndarray) -> Tensor:
        """x0 [B, S, S] of coefficients [n, K, S, S] in physical units."""
        return self.posterior.coefficient.normalise(torch.from_numpy(coefficient).flatten(0, 1)).float()

    def coefficient(self, x0: Tensor) -> np.ndarray:
        """[n, K, S, S] in physical units."""
        found = self.posterior.physical(x0).double().numpy()
        return np.asarray(found.reshape(len(self.posterior.values), -1, *found.shape[1:]))

    def misfit(self, x0: Tensor) -> float:
        """Minus the logarithm of the kernel, on average."""
        return float(self.batch.observation.negative_log_likelihood(self.batch.predict(x0)).mean())


def larger_share(fields: np.ndarray) -> np.ndarray:
    """Share [...] of the nodes of fields [..., S, S] that are nearer to the larger of the two values."""
    return np.asarray((fields > (fields.min() + fields.max()) / 2).mean(axis=(-2, -1)))


def share_text(samples: np.ndarray) -> str:
    """Of samples [n, K, S, S]: the mean of each field; the standard deviation in a field, on average over them."""
    share = larger_share(samples)
    return f"{', '.join(f'{mean:.3f}' for mean in share.mean(axis=1))}; ± {share.std(axis=1).mean():.3f}"


def trace(sampler: Sampler, begin: np.ndarray, name: str, references: References, floor: np.ndarray) -> list[list[str]]:
    """Rows of chains that begin at coefficients [n, K, S, S]."""
    chains = Chains.of(sampler, len(begin), begin.shape[1], f"darcy moves {name}")
    rows, accepted, before = [], 0.0, chains.normalised(begin)
    for done, (_, x0) in enumerate([(0.0, before), *renoise(chains.batch, before, max(SHOWN), LEVELS)]):
        accepted, before = accepted + float((x0 != before).flatten(1).any(dim=1).double().mean()), x0
        if done in SHOWN:
            found = chains.coefficient(x0)
            distances = beside(far(found, references, references.attributes["coefficient_std"]), floor)
            share = f"{accepted / done:.2f}" if done else ""
            rows.append([name, str(done), share, *distances, f"{chains.misfit(x0):.2f}", share_text(found)])
            print(" | ".join(rows[-1]), flush=True)
    return rows


def prior_samples(sampler: Sampler) -> np.ndarray:
    """[PRIOR_SAMPLES, S, S] in physical units: from noise and a Gaussian field of the prior's spectrum, which it hides."""
    chains = Chains.of(sampler, 1, PRIOR_SAMPLES, "darcy moves prior")
    batch = chains.batch
    field = batch.basis.inverse(batch.spectrum.sqrt() * batch.draw_white(*batch.shape)).float()
    return chains.coefficient(reverse(batch, field[:, None] + LARGEST * batch.draw_noise(), LARGEST, PRIOR_STEPS))[0]


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

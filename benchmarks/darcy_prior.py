"""What the training of the prior is worth to `ddis-gn` where the coefficient has two values: distances to a reference posterior.

    python benchmarks/darcy_prior.py [--study results/posteriorbench-darcy-64]

Takes data, reference and prior of a study of config/posteriorbench-darcy-64.yaml. Trains its prior anew with other numbers of
steps, the learning rate following them, and draws 32 samples of each of its four test fields with the settings of its run
`ddis-gn-solver` and each prior. Five distances to the reference, means over the fields, and in brackets how many times the
floor, which is what 32 other draws of the reference have. Beside them the prior's squared error over that of the best linear
denoiser, less one, at three levels of noise: negative, as two-valued fields can be denoised better than linearly. Writes
benchmarks/results/darcy_prior.md after every row. Three quarters of an hour on one core.
"""

from dataclasses import replace
from pathlib import Path

import torch
from darcy_levels import CASE, SAMPLES, given_study, with_settings
from posteriorbench_gap import beside, drawn, far

from ddis.config import Study
from ddis.data.references import read_references
from ddis.files import write_text
from ddis.priors import Prior
from ddis.stages.common import settle
from ddis.stages.layout import reference_path
from ddis.stages.train import make_job, prior_quality, train_to_end
from ddis.text import pipe_table
from ddis.trained import load_network
from ddis.training.distributed import Ranks

RESULT = Path(__file__).parent / "results" / "darcy_prior.md"
FACTORS, SIGMAS = (1, 1 / 3, 3), (0.1, 0.5, 2.0)
SHOWS = f"Distances of {SAMPLES} samples of `{CASE.run}` to the reference, means over the fields of posteriorbench-darcy-64."
HEAD = ["steps of the prior", *(f"excess, σ = {s:g}" for s in SIGMAS), "mean", "std", "MMD", "SWD", "spectrum"]


def prior_of(study: Study, factor: float) -> tuple[int, Prior]:
    """The number of steps, and the study's prior trained with that many: `factor` times its own."""
    trained, steps = load_network(study, CASE.problem, "prior", torch.device("cpu")), study.prior.training.steps
    if factor == 1:
        return steps, trained.as_prior()
    training = study.prior.training.model_copy(update={"steps": round(factor * steps)})
    other = study.model_copy(update={"prior": study.prior.model_copy(update={"training": training})})
    job = make_job(other, CASE.problem, "prior", Ranks())
    train_to_end(other, CASE.problem, "prior", job, None)
    network = job.trainer.average
    network.load_state_dict(job.trainer.best)
    network.eval().requires_grad_(False)
    excess = {row["sigma"]: row["excess"] for row in prior_quality(other, CASE.problem, network, job)}
    return training.steps, replace(trained, network=network, excess=excess).as_prior()


def main() -> None:
    study = given_study(__doc__)
    with settle(study):
        references = read_references(reference_path(study, CASE.problem, CASE.observation))
        scale, fields = references.attributes["coefficient_std"], len(references.coefficient)
        floor = far(references.coefficient[:, :SAMPLES], references, scale)
        rows = {0: ["the floor", *("" for _ in SIGMAS), *(f"{value:.3f}" for value in floor)]}
        for factor in FACTORS:
            steps, prior = prior_of(study, factor)
            sampler = with_settings(study, {})
            sampler.parts = replace(sampler.parts, prior=prior)
            found = far(drawn(sampler, fields, "darcy prior"), references, scale)
            assert prior.excess is not None
            rows[steps] = [str(steps), *(f"{100 * prior.excess[s]:.0f} %" for s in SIGMAS), *beside(found, floor)]
            print(" | ".join(rows[steps]), flush=True)
            write_text(RESULT, f"{SHOWS}\n\n{pipe_table(HEAD, [rows[key] for key in sorted(rows)])}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

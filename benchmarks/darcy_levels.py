"""How many levels `ddis-gn` needs where the coefficient has two values: distances to a reference posterior.

    python benchmarks/darcy_levels.py [--study results/posteriorbench-darcy-64]

Takes data, reference and prior of a study of config/posteriorbench-darcy-64.yaml, and draws 32 samples of its first two test
fields with its run `ddis-gn-solver`, with other levels and another covariance of x0 given x_t. Five distances to the reference,
means over the two fields, and in brackets how many times the floor, which is what 32 other draws of the reference have. Writes
benchmarks/results/darcy_levels.md after every row. Twenty minutes on one core.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from posteriorbench_gap import beside, drawn, far

from ddis.config import Case, Study
from ddis.data.references import read_references
from ddis.files import write_text
from ddis.stages.common import settle
from ddis.stages.layout import reference_path
from ddis.stages.sampler import Sampler
from ddis.text import pipe_table

RESULT = Path(__file__).parent / "results" / "darcy_levels.md"
CASE = Case("darcy", "kernel", "ddis-gn-solver", "100")
FIELDS, SAMPLES = 2, 32
TRIED: tuple[dict[str, Any], ...] = (
    {"steps": 12, "sigma_max": 3, "covariance": "spectrum"},
    {"steps": 30, "sigma_max": 3, "covariance": "spectrum"},
    {"steps": 90, "sigma_max": 3, "covariance": "spectrum"},
    {"steps": 30, "sigma_max": 10, "covariance": "spectrum"},
    {"steps": 30, "sigma_max": 10, "covariance": "denoiser"},
    {"steps": 240, "sigma_max": 3, "covariance": "spectrum"},
)
SHOWS = f"Distances of {SAMPLES} samples of `{CASE.run}` to the reference, means over {FIELDS} fields of posteriorbench-darcy-64."
HEAD = ["levels", "from σ", "covariance", "mean", "std", "MMD", "SWD", "spectrum", "s per sample"]


def given_study(description: str | None) -> Study:
    """That of the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("results/posteriorbench-darcy-64"), help="folder of the study")
    return Study.in_folder(parser.parse_args().study)


def with_settings(study: Study, changes: dict[str, Any]) -> Sampler:
    """The run with other settings."""
    settings = study.run_for(CASE)
    return Sampler(study, CASE, type(settings).model_validate({**settings.model_dump(), **changes, "samples": SAMPLES}))


def main() -> None:
    study = given_study(__doc__)
    with settle(study):
        references = read_references(reference_path(study, CASE.problem, CASE.observation))
        scale = references.attributes["coefficient_std"]
        floor = far(references.coefficient[:FIELDS, :SAMPLES], references, scale)
        rows = [["the floor", "", "", *(f"{value:.3f}" for value in floor), ""]]
        for changes in TRIED:
            begin = time.process_time()
            found = far(drawn(with_settings(study, changes), FIELDS, "darcy levels"), references, scale)
            seconds = (time.process_time() - begin) / (FIELDS * SAMPLES)
            rows.append([*map(str, changes.values()), *beside(found, floor), f"{seconds:.1f}"])
            print(" | ".join(rows[-1]), flush=True)
            write_text(RESULT, f"{SHOWS}\n\n{pipe_table(HEAD, rows)}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

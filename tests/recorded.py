"""The tiny study of the right files with small contents, and their records."""

from pathlib import Path

import numpy as np
import torch
import yaml

from ddis.config import Study
from ddis.data.store import Samples, write_pairs, write_samples
from ddis.files import write_text
from ddis.models.checkpoint import save_tensors
from ddis.stages import records
from ddis.steps import Step

TINY = Path(__file__).parent / "tiny.yaml"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20 + b"IEND\xaeB`\x82"


def fill(path: Path, number: int) -> None:
    """A valid file of the kind that its name says; `number` makes it differ from others."""
    field = np.full((2, 4, 4), number, np.float32)
    if path.suffix == ".h5" and path.parts[2] == "data":
        write_pairs(path, field, field, {})
    elif path.suffix == ".h5":
        moments = dict.fromkeys(("mean", "std", "coefficient_true", "solution_true", "observation"), field)
        write_samples(path, Samples(coefficient=field[:, None], mask=field > 0, **moments))
    elif path.suffix == ".safetensors":
        save_tensors(path, {"w": torch.full((3,), float(number))}, {})
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = {".csv": f"a,b\n{number},2\n", ".json": f'{{"a": {number}}}', ".yaml": f"a: {number}\n"}
        path.write_bytes(PNG if path.suffix == ".png" else texts.get(path.suffix, f"text {number}\n").encode())


def make(study: Study, step: Step, number: int = 0) -> None:
    """All files of a step, and its record."""
    if step.stage == "study":
        write_text(study.folder / "config.yaml", yaml.safe_dump(study.resolved()))
    else:
        for path in records.outputs_of(study, step):
            fill(path, number)
    read = records.digests(study, records.inputs_of(study, step))
    settings = {} if step.stage == "study" else study.inputs(step.stage, **step.arguments)
    records.write_record(study, step, {"settings": settings, "seed": study.seed}, read)


def finished(tuned: bool = False) -> Study:
    """The tiny study, finished, in the working directory; tuned: with its tuning curves."""
    study = Study.load(TINY)
    for number, step in enumerate([*records.steps(study), *(records.asked_steps(study) if tuned else ())]):
        make(study, step, number)
    return study

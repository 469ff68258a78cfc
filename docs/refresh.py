"""Puts what the quickstart study really gave into the documentation: `python docs/refresh.py`, at the repository root.

Needs `snakemake --cores all` and `snakemake --cores all tune` to have run. Copies the figures to docs/quickstart/, runs the
commands of docs/solve.md, and rewrites what stands between the markers `<!-- name:begin -->` and `<!-- name:end -->` of these two
pages and README.md.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from ddis.config import Study
from ddis.stages.layout import tuning_path
from ddis.stages.tuning import chosen_weight
from ddis.text import pipe_table

STUDY = Path("results/quickstart")
FIGURES = Path("docs/quickstart")
TABLE_COLUMNS = {
    "run": "run",
    "percent": "% pairs",
    "n_samples": "K",
    "l2_sample": "l2 of a sample, %",
    "l2_mean": "l2 of the mean of K, %",
    "spectral": "E_s",
    "coverage90": "coverage of 90 %",
    "seconds_per_sample": "s per sample",
}


def errors() -> str:
    """The columns of errors.csv that a newcomer reads first."""
    table, rows = pd.read_csv(STUDY / "tables" / "errors.csv"), []
    for _, row in table.iterrows():
        cells = {name: "" if pd.isna(row[name]) else f"{row[name]:.3g}" for name in TABLE_COLUMNS if name != "run"}
        for name in ("l2_sample", "l2_mean"):
            cells[name] = f"{row[name]:.1f} ± {row[name + '_se']:.1f}"
        rows.append([f"`{row['run']}`", *cells.values()])
    return pipe_table(list(TABLE_COLUMNS.values()), rows)


def times() -> str:
    """Seconds and memory of every job, from Snakemake's benchmark files."""
    rows = []
    for path in sorted((STUDY / "benchmarks").rglob("*.tsv")):
        if "tune" in path.parts or "tuning" in path.name:
            continue
        row = pd.read_csv(path, sep="\t").iloc[0]
        name = path.relative_to(STUDY / "benchmarks").with_suffix("").as_posix()
        rows.append([name, f"{row['s']:.0f}", f"{row['max_rss']:.0f}"])
    return pipe_table(["job", "seconds", "peak memory, MB"], rows)


def prior(models: Path, reference: str = "optimal") -> str:
    """The trained prior of a folder of models against the optimal denoiser, or the best linear one where that is not known."""
    table = pd.read_csv(models / "prior" / "denoising.csv")
    rows = [[f"{r.sigma:g}", f"{r.error:.3e}", f"{r.optimal_error:.3e}", f"{100 * r.excess:.1f} %"] for r in table.itertuples()]
    return pipe_table(["σ", "mean squared error", f"of the {reference} denoiser", "excess"], rows)


def networks(models: Path) -> str:
    """Every network of a folder of models: size, data, validation loss."""
    rows = []
    for path in sorted(models.glob("*/model.json")):
        m = json.loads(path.read_text())
        sizes = [f"{m[key]:,}" for key in ("parameters", "training_fields", "validation_fields")]
        rows.append([f"`{m['model']}`", *sizes, f"{m['validation_loss']:.4f}"])
    return pipe_table(["network", "parameters", "training fields", "validation fields", "validation loss"], rows)


def tuning(study: Study) -> str:
    """Validation error against the weight, for every tuned run."""
    rows, several = [], len(study.problems) > 1
    for case in study.cases():
        if case.run not in study.tuning.candidates:
            continue
        chosen = chosen_weight(study, case)
        for row in pd.read_csv(tuning_path(study, **vars(case))).itertuples():
            error = "" if pd.isna(row.l2_validation) else f"{row.l2_validation:.1f} ± {row.l2_validation_se:.1f}"
            weight = f"**{row.weight:g}**" if row.weight == chosen else f"{row.weight:g}"
            rows.append(
                [*[case.problem] * several, f"`{case.run}`", case.percent, weight, error, f"{row.n_diverged} of {row.n_fields}"]
            )
    return pipe_table([*["problem"] * several, "run", "% pairs", "weight", "l2 on validation fields, %", "diverged"], rows)


def solve(page: Path) -> dict[str, str]:
    """What the commands of docs/solve.md say, also with a wrong observation; puts the picture into docs/solve/."""
    text = page.read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in re.findall(r"^    ((?:ddis solve|python docs/solve/).*)$", text, re.MULTILINE)]
    given = Path("docs/solve/observations.csv").read_text(encoding="utf-8").splitlines()
    x, y, value, noise = given[1].split(",")
    with TemporaryDirectory() as folder:
        wrong, output = Path(folder, "wrong.csv"), Path(folder, "solution.h5")
        wrong.write_text("\n".join([given[0], ",".join([x, y, value.lstrip("-"), noise]), *given[2:]]), encoding="utf-8")

        def said(command: list[str], **changed: Path) -> list[str]:
            places = {"solution.h5": output, "docs/solve/observations.csv": changed.get("observations")}
            program = [sys.executable, "-m", "ddis"] if command[0] == "ddis" else [sys.executable]
            arguments = [str(places.get(word) or word) for word in command[1:]]
            more = ["--force"] if changed else []
            done = subprocess.run([*program, *arguments, *more], capture_output=True, text=True, check=True)
            return (done.stdout + done.stderr).replace(f"{folder}/", "").splitlines()

        found, compared = said(commands[0]), said(commands[1])
        shutil.copy(output.with_suffix(".png"), "docs/solve/solution.png")
        warned = lines_from("warning: misfit", said(commands[0], observations=wrong))
        parts = {"solve": lines_from("solution.h5", found), "compare": compared[-1:], "warning": warned[:1]}
    return {name: "\n".join(f"    {line}" for line in lines) for name, lines in parts.items()}


def lines_from(start: str, lines: list[str]) -> list[str]:
    """The lines from the first on that begins with `start`: progress stands before them."""
    return lines[[line.startswith(start) for line in lines].index(True) :]


def fill(path: Path, parts: dict[str, str]) -> None:
    """Rewrites the marked parts of a page."""
    text = path.read_text(encoding="utf-8")
    for name, content in parts.items():
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        text = pattern.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", text)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    FIGURES.mkdir(parents=True, exist_ok=True)
    for figure in sorted((STUDY / "figures").glob("*.png")):
        shutil.copy(figure, FIGURES / figure.name)
    fill(Path("README.md"), {"errors": errors()})
    models, study = STUDY / "models" / "poisson", Study.load(STUDY / "config.yaml")
    parts = {"errors": errors(), "times": times(), "prior": prior(models), "networks": networks(models), "tuning": tuning(study)}
    fill(Path("docs/quickstart.md"), parts)
    fill(Path("docs/solve.md"), solve(Path("docs/solve.md")))


if __name__ == "__main__":
    main()

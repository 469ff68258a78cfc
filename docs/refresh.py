"""Puts what the quickstart study really gave into the documentation: `python docs/refresh.py`, at the repository root.

Needs `snakemake --cores all` and `snakemake --cores all tune` to have run. Copies the figures to docs/quickstart/ and rewrites
what stands between the markers `<!-- name:begin -->` and `<!-- name:end -->` of README.md and docs/quickstart.md.
"""

import json
import re
import shutil
from pathlib import Path

import pandas as pd

from ddis.config import Study
from ddis.stages.layout import tuning_path

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


def markdown(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is the head."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def errors() -> str:
    """The columns of errors.csv that a newcomer reads first."""
    table = pd.read_csv(STUDY / "tables" / "errors.csv")
    rows = [list(TABLE_COLUMNS.values())]
    for _, row in table.iterrows():
        cells = {name: "" if pd.isna(row[name]) else f"{row[name]:.3g}" for name in TABLE_COLUMNS if name != "run"}
        for name in ("l2_sample", "l2_mean"):
            cells[name] = f"{row[name]:.1f} ± {row[name + '_se']:.1f}"
        rows.append([f"`{row['run']}`", *cells.values()])
    return markdown(rows)


def times() -> str:
    """Seconds and memory of every job, from Snakemake's benchmark files."""
    rows = [["job", "seconds", "peak memory, MB"]]
    for path in sorted((STUDY / "benchmarks").rglob("*.tsv")):
        if "tune" in path.parts or "tuning" in path.name:
            continue
        row = pd.read_csv(path, sep="\t").iloc[0]
        name = path.relative_to(STUDY / "benchmarks").with_suffix("").as_posix()
        rows.append([name, f"{row['s']:.0f}", f"{row['max_rss']:.0f}"])
    return markdown(rows)


def prior() -> str:
    """The trained prior against the optimal denoiser."""
    table = pd.read_csv(STUDY / "models" / "poisson" / "prior" / "denoising.csv")
    rows = [["σ", "mean squared error", "of the optimal denoiser", "excess"]]
    rows += [[f"{r.sigma:g}", f"{r.error:.3e}", f"{r.optimal_error:.3e}", f"{100 * r.excess:.1f} %"] for r in table.itertuples()]
    return markdown(rows)


def networks() -> str:
    """Every network: size, data, validation loss."""
    rows = [["network", "parameters", "training fields", "validation fields", "validation loss"]]
    for path in sorted((STUDY / "models" / "poisson").glob("*/model.json")):
        m = json.loads(path.read_text())
        sizes = [f"{m[key]:,}" for key in ("parameters", "training_fields", "validation_fields")]
        rows.append([f"`{m['model']}`", *sizes, f"{m['validation_loss']:.4f}"])
    return markdown(rows)


def tuning() -> str:
    """Validation error against the weight, for every tuned run."""
    study = Study.load(STUDY / "config.yaml")
    rows = [["run", "% pairs", "weight", "l2 on validation fields, %", "diverged"]]
    for case in study.cases():
        if case.run not in study.tuning.candidates:
            continue
        chosen = study.run_for(case).weight  # type: ignore[attr-defined]
        for row in pd.read_csv(tuning_path(study, **vars(case))).itertuples():
            error = "" if pd.isna(row.l2_validation) else f"{row.l2_validation:.1f} ± {row.l2_validation_se:.1f}"
            weight = f"**{row.weight:g}**" if row.weight == chosen else f"{row.weight:g}"
            rows.append([f"`{case.run}`", case.percent, weight, error, f"{row.n_diverged} of {row.n_fields}"])
    return markdown(rows)


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
    parts = {"errors": errors(), "times": times(), "prior": prior(), "networks": networks(), "tuning": tuning()}
    fill(Path("docs/quickstart.md"), parts)


if __name__ == "__main__":
    main()

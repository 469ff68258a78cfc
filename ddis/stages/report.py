"""Stage `report`: the study as one page that opens from disk."""

from typing import Any

from ddis import provenance
from ddis.config import Study
from ddis.evaluation import claims, readable
from ddis.evaluation.report import Model, Picture, render_report
from ddis.evaluation.table import from_csv
from ddis.evaluation.text import read_table
from ddis.files import read_bytes, read_json, read_text, write_text
from ddis.stages.common import stage
from ddis.stages.layout import figure_names, groups, has_limit, model_folder, models
from ddis.stages.tables import notes

TITLES = {
    "gallery": (
        "Truth, observation, estimates and errors",
        "Two test fields: the true coefficient, what was observed, and each run's mean with its error.",
    ),
    "spectra": ("Spectra", "Ring-averaged power of the samples beside that of the truth, averaged over the test fields."),
    "fractions": ("Error against the fraction of pairs", "Mean over the test fields with its standard error; lower is better."),
    "calibration": (
        "Calibration",
        "Coverage of the 50 and 90 % intervals, spread over error, and CRPS (smaller is better), for runs with at least four "
        "samples; bars are bootstrap intervals over the test fields.",
    ),
    "ranks": (
        "Rank histograms",
        "How often the true value has each rank among the samples. Flat is calibrated, a bowl too narrow, a hill too wide. Nodes "
        "of one field are correlated, so the grey band, where 95 % of calibrated ensembles would be, comes from exchanging truth "
        "and samples of whole fields.",
    ),
    "limit": (
        "Distance to the limit",
        "Error of the mean and spectral error as ratios to exact samples at the same K; squared error of the mean, split into "
        "what the limit, prior, operator and sampler contribute.",
    ),
    "sbc": (
        "Simulation-based calibration",
        "How often the truth ranks below each share of the samples, minus what a uniform rank would give, for quantities of the "
        "field and (TARP) its distance to a random reference. Lines of an exact posterior are inside the grey band, all at once, "
        "in 95 % of cases; an S that rises above it first is too narrow, one that is below it first too wide.",
    ),
    "training": ("Training", "Training and validation loss of every network."),
    "prior": (
        "Prior against the optimal denoiser",
        "Mean squared error per noise level. For a Gaussian coefficient the optimal denoiser is known in closed form; for others "
        "the best linear one is shown, which a trained prior may beat.",
    ),
}


def run(study: Study) -> None:
    """Writes report.html."""
    with stage(study, "report") as (tracker, record):
        table = from_csv(study.folder / "tables" / "errors.csv")
        pictures = {name: picture(study, name) for name in figure_names(study)}
        training = [p for name, p in pictures.items() if name.startswith(("training", "prior"))]
        lead = [pictures[name] for name in leading(study)]
        html = render_report(
            study=study.study,
            config=study.resolved(),
            table=table,
            caption=readable.caption(table, study.study, study.seed, notes(study)),
            lead=lead,
            claims=read_table(study.folder / "tables" / "claims.csv", claims.TYPES),
            claims_text=read_text(study.folder / "tables" / "claims.md"),
            comparisons={title: read_text(study.folder / "tables" / name) for title, name in comparisons(study).items()},
            results=[p for p in pictures.values() if p not in [*lead, *training]],
            cards={p: read_text(study.folder / "data" / p / "card.md") for p in study.problems},
            data=[
                Picture(f"Pairs of {p}", read_bytes(study.folder / "data" / p / "pairs.png"), "Coefficients and their solutions.")
                for p in study.problems
            ],
            models=[model(study, p, m) for p in study.problems for m in models(study, p)],
            training=training,
            provenance={key: value for key, value in record.items() if key != "settings"},
        )
        path = study.folder / "report.html"
        write_text(path, html)
        tracker.artifact(path)
        tracker.metrics({"peak_memory_mb": provenance.peak_memory_mb()})


def comparisons(study: Study) -> dict[str, str]:
    """Titles and files of the tables that compare runs with the best that could be, and test them."""
    shown = {"Distance to the limit": "limit.md", "Calibration, tested": "calibration.md"}
    return shown | {"Distance to the reference posterior": "posterior.md"} if study.reference_cases() else shown


def leading(study: Study) -> list[str]:
    """Names of the figures that tell most: estimates beside the truth, and errors beside the limit or the share of the pairs."""
    problem, observation = groups(study)[0]
    compared = "limit" if has_limit(study, problem, observation) else "fractions"
    return [f"{kind}-{problem}-{observation}.png" for kind in ("gallery", compared)]


def picture(study: Study, name: str) -> Picture:
    """A figure of the study with its title and caption."""
    kind, _, rest = name.removesuffix(".png").partition("-")
    title, caption = TITLES[kind]
    return Picture(f"{title}: {rest}", read_bytes(study.folder / "figures" / name), caption)


def model(study: Study, problem: str, name: str) -> Model:
    """Facts of a trained network; for a prior also its quality per noise level."""
    folder = model_folder(study, problem, name)
    information: dict[str, Any] = read_json(folder / "model.json")
    keys = ("parameters", "training_fields", "validation_fields", "validation_loss", "relative_error")
    facts = {key.replace("_", " "): information[key] for key in keys if key in information}
    quality = folder / "denoising.csv"
    shown = (
        {"Error per noise level, against the optimal (or best linear) denoiser": read_table(quality)} if quality.exists() else {}
    )
    return Model(f"{problem} {name}", facts, shown)

"""The table, the figures and the report, from samples whose errors are known."""

import re
from html.parser import HTMLParser
from typing import Any

import matplotlib
import numpy as np
import pytest

from ddis.data.references import References
from ddis.data.store import Samples
from ddis.data.subsets import percent_name
from ddis.evaluation import limit as limits
from ddis.evaluation import readable, table
from ddis.evaluation.figures import calibration, fields, limit, moments, sbc, training
from ddis.evaluation.figures import errors as error_figures
from ddis.evaluation.figures.style import plain_number, plain_ticks, run_colours, run_label, to_png
from ddis.evaluation.report import Model, Picture, render_report
from ddis.evaluation.scores import field_scores
from ddis.evaluation.text import known, where
from ddis.files import write_text

SIDE, FIELDS = 16, 6
ERRORS_CSV = (
    "problem,pde,run,method,operator,percent,pairs,observation,observations,noise,resolution,n_fields,n_samples,n_failed,"
    "l2_sample,l2_sample_se,l2_mean,l2_mean_se,l2_limit,spectral,spectral_se,error_rate,coverage50,coverage90,crps,"
    "spread_skill,misfit,prior_evaluations,operator_evaluations,seconds_per_field,seconds_per_sample,peak_memory_mb,device,"
    "l2_paper,spectral_paper,solver_calls,mode_share,mode_share_low,mode_share_high,mode_pairs,mode_pairs_low,mode_pairs_high"
)


def smooth_fields(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    k = np.fft.fftfreq(shape[-1], 1 / shape[-1])
    decay = 1 / (1 + (k[:, None] ** 2 + k**2))
    noise = np.random.default_rng(seed).standard_normal(shape)
    return np.fft.ifft2(np.fft.fft2(noise) * decay).real


def make_samples(
    run: str = "ddis", percent: float = 100, size: int = 8, error: float = 0.2, side: int = SIDE, seed: int = 0, **attributes: Any
) -> Samples:
    """Samples whose mean misses the truth by a field of their own distribution, scaled by `error`."""
    truth = smooth_fields(100, (FIELDS, side, side))
    centre = truth + error * smooth_fields(seed + 1, truth.shape)
    samples = centre[:, None] + error * smooth_fields(seed + 2, (FIELDS, size, side, side))
    rng = np.random.default_rng(5)
    mask = rng.permuted(np.arange(side * side) < side * side // 8 * np.ones((FIELDS, 1)), axis=1).reshape(truth.shape)
    solution = 0.01 * smooth_fields(300, truth.shape)
    known = {"problem": "poisson", "pde": "poisson", "run": run, "method": run, "operator": "fno", "percent": percent}
    known |= {"pairs": round(100 * percent), "observation": "sparse", "noise": 0.0, "device": "cpu", "seconds_per_field": 1.25}
    known["prior"] = {"fundps": "joint", "exact": None}.get(attributes.get("method", run), "coefficient")
    return Samples(
        coefficient=np.float32(samples),
        mean=np.float32(centre),
        std=np.float32(samples.std(axis=1)),
        coefficient_true=np.float32(truth),
        solution_true=np.float32(solution),
        mask=mask,
        observation=np.float32(np.where(mask, solution, 0)),
        attributes=known | attributes,
    )


def make_study() -> list[Samples]:
    return [
        make_samples("exact", error=0.1, seed=10, operator=None, pairs=None, seconds_per_field=0.01),
        make_samples("ddis-gn", error=0.15, seed=20),
        make_samples("ddis-gn", percent=1, error=0.25, seed=30),
        make_samples("ddis", size=1, error=0.3, seed=40),
        make_samples("fundps", size=1, error=0.5, seed=50),
        make_samples("fundps", percent=1, size=1, error=0.9, seed=60),
    ]


@pytest.fixture(scope="module")
def study() -> list[Samples]:
    return make_study()


@pytest.fixture(scope="module")
def errors(study: list[Samples]) -> list[dict[str, Any]]:
    limits = field_scores(study[0]).l2_stored
    return table.error_table([table.error_row(field_scores(samples), limits) for samples in study])


def test_row_of_scaled_truth_has_the_errors_that_follow_from_the_scale():
    samples = make_samples(size=2, percent=12.5)
    truth = samples.coefficient_true
    samples.coefficient = np.stack([1.1 * truth, 0.7 * truth], axis=1)
    row = table.error_row(field_scores(samples), None)
    assert row["l2_sample"] == pytest.approx(20, rel=1e-5) and row["l2_sample_se"] == pytest.approx(0, abs=1e-4)
    assert row["l2_mean"] == pytest.approx(10, rel=1e-5)
    assert row["spectral"] == pytest.approx((0.21 + 0.51) / 2, rel=1e-4)
    assert (row["n_fields"], row["n_samples"], row["n_failed"], row["resolution"]) == (FIELDS, 2, 0, SIDE)
    assert row["observations"] == SIDE * SIDE // 8 and row["pairs"] == 1250
    for name in ("coverage50", "crps", "l2_limit", "error_rate", "misfit", "l2_paper"):
        assert row[name] is None, name


def test_failed_fields_are_counted_and_left_out():
    samples = make_samples()
    clean = make_samples()
    samples.coefficient[2, 3, 0, 0] = np.nan
    kept = [0, 1, 3, 4, 5]
    for name in ("coefficient", "mean", "std", "coefficient_true", "solution_true", "mask", "observation"):
        setattr(clean, name, getattr(clean, name)[kept])
    row, expected = table.error_row(field_scores(samples), None), table.error_row(field_scores(clean), None)
    assert (row.pop("n_failed"), row.pop("n_fields")) == (1, FIELDS)
    assert (expected.pop("n_failed"), expected.pop("n_fields")) == (0, FIELDS - 1)
    assert row == expected
    samples.coefficient[:] = np.inf
    row = table.error_row(field_scores(samples), None)
    assert row["n_failed"] == FIELDS and row["l2_sample"] is None and row["coverage90"] is None


def test_misfit_is_in_units_of_the_solution():
    samples = make_samples(size=3)
    scale = samples.solution_true.astype(float).std()
    samples.solution = np.repeat(samples.solution_true[:, None] + np.float32(0.25 * scale), 3, axis=1)
    assert table.error_row(field_scores(samples), None)["misfit"] == pytest.approx(0.25, rel=1e-5)


def test_two_valued_fields_have_an_error_rate():
    samples = make_samples(pde="darcy", problem="darcy")
    samples.coefficient_true = np.where(samples.coefficient_true >= 0, 12, 3).astype(np.float32)
    samples.coefficient = np.repeat(samples.coefficient_true[:, None], 8, axis=1)
    samples.coefficient[:, :, :4] = 15 - samples.coefficient[:, :, :4]
    assert table.error_row(field_scores(samples), None)["error_rate"] == pytest.approx(25)


def test_limit_is_that_of_the_stored_mean(study):
    expected = [np.linalg.norm(m - t) / np.linalg.norm(t) for m, t in zip(study[0].mean, study[0].coefficient_true, strict=True)]
    assert field_scores(study[0]).l2_stored.mean() == pytest.approx(100 * np.mean(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("method", "percent", "changes", "published"),
    [
        ("ddis", 100, {}, (15.78, 0.074)),
        ("fundps", 1, {}, (35.81, None)),
        ("diffusionpde", 100, {"pde": "helmholtz", "problem": "helmholtz"}, (19.07, None)),
        ("ddis-gn", 100, {}, (None, None)),
        ("ddis", 5, {}, (None, None)),
        ("ddis", 100, {"operator": "solver"}, (None, None)),
        ("ddis", 100, {"problem": "turbulent", "pde": "navier-stokes"}, (None, None)),
    ],
)
def test_published_figures_stand_only_beside_their_own_case(method, percent, changes, published):
    row = table.error_row(field_scores(make_samples(method, percent=percent, size=1, **changes)), None)
    assert (row["l2_paper"], row["spectral_paper"]) == published


def test_csv_has_the_stated_columns_and_comes_back_the_same(errors, tmp_path):
    text = table.to_csv(errors)
    assert text.splitlines()[0] == ERRORS_CSV
    assert "nan" not in text.lower() and "<na>" not in text.lower()
    write_text(tmp_path / "errors.csv", text)
    again = table.from_csv(tmp_path / "errors.csv")
    assert again == errors and table.to_csv(again) == text
    assert all(row[name] is None or type(row[name]) is kind for row in again for name, kind in table.COLUMNS.items())
    (exact,), (ddis,) = (where(errors, run=run) for run in ("exact", "ddis"))
    assert f",{exact['l2_sample']!r}," in text and ",100,10000," in text
    assert exact["coverage90"] > 0 and ddis["coverage90"] is None


def test_percent_has_no_trailing_zeros():
    assert [percent_name(p) for p in (1, 1.0, 12.5, 100.0, 0.1)] == ["1", "1", "12.5", "100", "0.1"]


class Cells(HTMLParser):
    """Rows of the first table of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def test_markdown_latex_and_html_agree_with_the_csv(errors):
    caption = readable.caption(errors, "quickstart", 3)
    lines = [line for line in readable.to_markdown(errors, caption).splitlines() if line.startswith("|")]
    markdown = [[cell.strip().strip("*") for cell in line.strip("|").split(" | ")] for line in lines if "---" not in line]
    parser = Cells()
    parser.feed(readable.to_html(errors))
    body = readable.to_latex(errors, caption).split(r"\midrule")[1].split(r"\bottomrule")[0]
    latex = [line.removesuffix(r" \\").split(" & ") for line in body.strip().splitlines()]
    left_out = ("pairs", "cover 50", "CRPS", "spread / skill", "published l2, %", "published E_s")
    assert parser.rows[0] == [title for title in markdown[0] if title not in left_out]
    kept = [markdown[0].index(title) for title in parser.rows[0]]
    assert parser.rows == [[row[i] for i in kept] for row in markdown]
    plain = [[re.sub(r"\\textbf\{(.*)\}", r"\1", cell).replace(r"$\pm$", "±") for cell in row] for row in latex]
    assert plain == markdown[1:]
    column = markdown[0].index("l2 sample, %")
    for row, numbers in zip(markdown[1:], errors, strict=True):
        assert row[column] == f"{numbers['l2_sample']:.2f} ± {numbers['l2_sample_se']:.2f}"


def test_best_is_bold_among_competitors_only(errors):
    """Not `exact`, and not a run that has the solver for an operator."""
    oracle = [{**row, "run": "oracle", "operator": "solver", "l2_sample": 0.1} for row in where(errors, run="ddis-gn")]
    lines = readable.to_markdown([*errors, *oracle], "").splitlines()
    bold = [line for line in lines if "**" in line]
    assert len(bold) == 2 and all("ddis-gn" in line for line in bold)
    assert r"\textbf" in readable.to_latex(errors, "") and "<strong>" in readable.to_html(errors)


def test_empty_columns_and_cells_are_empty_in_the_readable_tables(errors):
    text = readable.to_markdown(errors, "") + readable.to_latex(errors, "") + readable.to_html(errors)
    assert "error rate" not in text and "nan" not in text and "NA" not in text and "None" not in text


def test_caption_says_how_the_table_was_made(errors):
    caption = readable.caption(errors, "quickstart", 3, notes=["Priors saw 10,000 coefficients."])
    for part in ("study quickstart", "seed 3", "device cpu", "16 nodes per axis", "32 observations", "no noise", "6 test fields"):
        assert part in caption, part
    assert "128 x 128 nodes, 500 noiseless observations" in caption and caption.endswith("Priors saw 10,000 coefficients.")
    assert "failed" not in caption
    broken = make_samples("ddis-gn", noise=0.01)
    broken.coefficient[0] = np.nan
    caption = readable.caption(table.error_table([table.error_row(field_scores(broken), None)]), "s", 0)
    assert "ddis-gn at 100 % of pairs (poisson, sparse): 1 of 6 fields failed" in caption and "noise 0.01 std(u)" in caption
    assert "128 x 128" not in caption


def test_latex_escapes_what_latex_would_read():
    rows = table.error_table([table.error_row(field_scores(make_samples("my_run&50%")), None)])
    text = readable.to_latex(rows, "50 % of #1_a")
    assert r"my\_run\&50\%" in text and r"50 \% of \#1\_a" in text
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize(("low", "high"), [(0.98, 1.01), (0.85, 1.1), (0.21, 0.84), (0.3, 5.0), (1e-4, 1.0)])
def test_a_logarithmic_axis_has_numbers_enough_to_be_read(low, high):
    ax = matplotlib.figure.Figure().subplots()
    ax.set(yscale="log", ylim=(low, high))
    plain_ticks(ax, "y")
    assert sum(low <= tick <= high for tick in ax.get_yticks()) >= 2


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.5, 2e5, ["10⁰", "10¹", "10²", "10³", "10⁴", "10⁵"]),
        (8, 2e4, ["10", "100", "1000", "10000"]),
        (4e-4, 6e-3, ["5×10⁻⁴", "10⁻³", "2×10⁻³", "5×10⁻³"]),
        (0.008, 3, ["0.01", "0.1", "1"]),
        (150, 900, ["200", "500"]),
        (2.08e-4, 2.27e-4, [f"{factor}×10⁻⁴" for factor in (2.1, 2.125, 2.15, 2.175, 2.2, 2.225, 2.25)]),
    ],
)
def test_a_logarithmic_axis_has_powers_of_ten_where_its_numbers_have_many_digits(low, high, labels):
    ax = matplotlib.figure.Figure().subplots()
    ax.set(yscale="log", ylim=(low, high))
    plain_ticks(ax, "y")
    shown = [tick for tick in ax.get_yticks() if low <= tick <= high]
    assert ax.yaxis.get_major_formatter().format_ticks(shown) == labels


def test_numbers_are_digits_or_powers_of_ten():
    written = {0: "0", 0.25: "0.25", -3: "-3", 5e-4: "0.0005", 1e-5: "10⁻⁵", -2.5e-5: "-2.5×10⁻⁵", 1e6: "10⁶", 12e6: "1.2×10⁷"}
    assert {value: plain_number(value) for value in written} == written


def test_runs_keep_their_colours():
    colours = run_colours(["zeta", "ddis", "exact", "alpha", "ddis"])
    assert colours["ddis"] == run_colours(["ddis"])["ddis"]
    assert len(set(colours.values())) == len(colours) == 4


def rows_of(columns: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(columns, map(float, cells), strict=True)) for cells in zip(*columns.values(), strict=True)]


def tuning_curve() -> list[dict[str, Any]]:
    weights, errors, bars = [100, 1, 10, 1000], [14, 40, 20, 600], [1, 2, 1, 60]
    return rows_of({"weight": weights, "l2_validation": errors, "l2_validation_se": bars})


def history() -> list[dict[str, Any]]:
    step = np.arange(10, 2001, 10)
    loss = 1 / np.sqrt(step)
    rate = 1e-3 * np.minimum(step / 200, 1) * np.cos(step / 2000 * np.pi / 2)
    values = {"step": step, "seconds": step / 20, "learning_rate": rate, "train_loss": loss, "validation_loss": 1.1 * loss}
    rows = rows_of(values)
    return [row if row["step"] % 200 == 0 else {**row, "validation_loss": None} for row in rows]


def quality() -> list[dict[str, Any]]:
    sigma = np.geomspace(0.01, 10, 13)
    optimal = sigma / (1 + sigma)
    return rows_of({"sigma": sigma, "error": 1.1 * optimal, "optimal_error": optimal, "excess": 0.1 * optimal})


def limit_tables(study: list[Samples]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    scores = [field_scores(samples) for samples in study]
    return limits.ratio_rows(scores), limits.split_rows(scores)


def every_figure(study: list[Samples], errors: list[dict[str, Any]]) -> dict[str, Any]:
    colours = run_colours([samples.attributes["run"] for samples in study])
    return {
        "gallery": fields.gallery(study[:3], [0, 1]),
        "gallery-sample": fields.gallery(study[3:5], [2], show="sample"),
        "spectra": error_figures.spectra(study, colours),
        "error": error_figures.error_against_fraction(errors, "poisson", "sparse", colours),
        "calibration": calibration.summary(calibration.judge(study), colours),
        "ranks": calibration.rank_histograms(calibration.judge(study), colours),
        "sbc": sbc.differences(study),
        "no-sbc": sbc.differences(study[3:]),
        "no-calibration": calibration.summary(calibration.judge(study[3:]), colours),
        "no-ranks": calibration.rank_histograms(calibration.judge(study[3:]), colours),
        "limit": limit.distance(*limit_tables(study), "poisson", "sparse", colours),
        "tuning": training.tuning(
            {"ddis, 100 %": tuning_curve(), "fundps, 1 %": tuning_curve()[:3]}, {"ddis, 100 %": 100.0, "fundps, 1 %": 10.0}
        ),
        "history": training.training_history(dict.fromkeys(("prior", "operator-1", "operator-100", "joint-100"), history())),
        "prior": training.prior_quality({"prior": quality()}, gaussian=True),
        "moments": moments.moments(study, make_references(study[0]), 0),
        "pairs": fields.pairs(
            study[0].coefficient_true[:4], study[0].solution_true[:4], "poisson, training split", study[0].spaces
        ),
    }


@pytest.fixture(scope="module")
def pictures(study: list[Samples], errors: list[dict[str, Any]]) -> dict[str, bytes]:
    return {name: to_png(figure, dpi=40) for name, figure in every_figure(study, errors).items()}


def test_figures_render_the_same_every_time_whatever_the_user_s_settings(study, errors, pictures):
    assert all(png.startswith(b"\x89PNG") for png in pictures.values())
    again = run_colours([samples.attributes["run"] for samples in study])
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False, "lines.linewidth": 5, "savefig.bbox": "tight"}):
        assert to_png(error_figures.spectra(study, again), dpi=40) == pictures["spectra"]


def test_figures_put_x_to_the_right():
    samples = make_samples(size=1)
    samples.coefficient_true[0] = np.linspace(0, 1, SIDE)[:, None]  # grows with x only
    axes = fields.gallery([samples], [0]).axes[0]
    shown = axes.images[0].get_array()
    assert np.ptp(shown, axis=0).max() == 0 and (np.diff(shown[0]) > 0).all() and axes.images[0].origin == "lower"


def test_figures_show_the_numbers_of_the_table(study, errors):
    colours = run_colours([samples.attributes["run"] for samples in study])
    figure = error_figures.error_against_fraction(errors, "poisson", "sparse", colours)
    heights = {line.get_label(): line.get_ydata()[0] for line in figure.axes[1].lines if len(set(line.get_ydata())) == 1}
    assert heights["limit (closed-form mean)"] == pytest.approx(field_scores(study[0]).l2_stored.mean())
    titles = [axes.get_title() for axes in fields.gallery(study[:1], [0]).axes]
    mean = study[0].coefficient[0].astype(float).mean(axis=0)
    truth = study[0].coefficient_true[0]
    assert f"error, l² {100 * np.linalg.norm(mean - truth) / np.linalg.norm(truth):.1f} %" in titles


def test_figures_of_calibration_show_the_numbers_of_the_table(study, errors):
    colours = run_colours([samples.attributes["run"] for samples in study])
    summary = calibration.summary(calibration.judge(study), colours)
    shown = [line.get_xdata()[0] for line in summary.axes[1].lines if line.get_marker() == "o"]
    assert shown == pytest.approx([known(errors, "coverage90")[place]["coverage90"] for place in (1, 2, 0)])
    labels = [label.get_text() for label in summary.axes[0].get_yticklabels()]
    assert labels == ["exact, K = 8", "ddis-gn, 100 %, K = 8", "ddis-gn, 1 %, K = 8"]
    panels = [axes for axes in calibration.rank_histograms(calibration.judge(study), colours).axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [run_label(samples) for samples in study[:3]]
    heights = [bar.get_height() for bar in panels[0].containers[0]]
    assert np.mean(heights) == pytest.approx(1)


def test_figure_of_the_limit_stacks_its_parts(study):
    """Bars end at the total, whose root is the label at the edge."""
    colours = run_colours([samples.attributes["run"] for samples in study])
    ratios, splits = limit_tables(study)
    bars = limit.distance(ratios, splits, "poisson", "sparse", colours).axes[2]
    first = [bar for bar in bars.patches if abs(bar.get_y() + bar.get_height() / 2) < 0.1]
    total = where(splits, run="ddis-gn", percent="100", part="total")[0]["l2_squared"]
    assert sum(bar.get_width() for bar in first) == pytest.approx(total)
    assert f"{np.sqrt(total):.1f} %" in [text.get_text() for text in bars.texts]


def make_references(samples: Samples, converged: bool = True) -> References:
    draws = samples.coefficient.shape[:2]
    attributes = {"converged": [converged] * draws[0]}
    return References(samples.coefficient, np.full(draws, 1 / draws[1]), samples.mean, samples.std, attributes)


def test_moments_are_those_of_reference_and_samples_and_show_no_reference_that_has_not_converged(study):
    figure = moments.moments([study[1], study[3]], make_references(study[0]), 2)
    reference, several, single = (study[place] for place in (0, 1, 3))
    drawn = [np.asarray(axes.images[0].get_array()).T for axes in figure.axes if axes.images]
    members = several.coefficient[2].astype(float)
    means = [reference.coefficient_true[2], reference.mean[2], members.mean(axis=0), single.coefficient[2, 0]]
    for shown, expected in zip(drawn, [*means, reference.std[2], members.std(axis=0, ddof=1)], strict=True):
        assert shown == pytest.approx(expected, rel=1e-6)
    titles = [axes.get_title() for axes in moments.moments([several], make_references(reference, False), 2).axes]
    assert "truth a" in titles and "reference" not in titles


def test_gallery_refuses_runs_on_other_fields_and_shows_failures():
    other = make_samples("fundps")
    other.coefficient_true = other.coefficient_true[::-1]
    with pytest.raises(ValueError, match="fundps, 100 %"):
        fields.gallery([make_samples(), other], [0])
    failed = make_samples()
    failed.coefficient[:] = np.nan
    figure = fields.gallery([failed], [0])
    assert "failed" in [axes.get_title() for axes in figure.axes]
    assert to_png(figure, dpi=40)


def make_report(errors: list[dict[str, Any]], pictures: dict[str, bytes]) -> str:
    return render_report(
        study="quickstart <b>",
        config={"study": "quickstart", "problems": {"poisson": {"pde": "poisson"}}, "fractions": (0.01, 1.0)},
        table=errors,
        caption=readable.caption(errors, "quickstart", 0),
        lead=[Picture("limit", pictures["limit"], "Caption of the lead.")],
        claims=[
            dict(zip(("claim", "ours", "low", "high", "verdict"), cells, strict=True))
            for cells in (("a < b", 1.0, 0.9, 1.1, "yes"), ("c", 2.0, None, None, "no"), ("d", None, None, None, "inconclusive"))
        ],
        claims_text="| claim | verdict |\n|---|---|\n| a < b | yes |",
        comparisons={"Distance to the limit": "| run | ratio |\n|---|---|\n| ddis | 2 |"},
        results=[Picture(name, pictures[name], f"Caption of {name}.") for name in ("gallery", "spectra", "error", "calibration")],
        cards={"poisson": "# Dataset poisson\n\n- **equation**: a < b\n\n| split | n |\n|---|---|\n| train | 10 |\n\n<script>"},
        data=[Picture("Pairs", pictures["pairs"], "Four pairs.")],
        models=[Model("poisson/prior", {"parameters": 1234}, {"Quality by noise level": quality()})],
        training=[Picture("Training", pictures["history"], "Loss.")],
        provenance={"commit": "abc123", "device": "cpu", "packages": {"numpy": "2.4"}},
    )


def test_report_is_complete_and_needs_nothing_from_outside(errors, pictures):
    page = make_report(errors, pictures)
    assert page.count("data:image/png;base64,") == 7
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page) and "@import" not in page and "url(" not in page
    assert "<script" not in page and "quickstart &lt;b&gt;" in page
    for part in ("Dataset poisson", "abc123", "numpy", "1234", "Quality by noise level", "Caption of spectra.", "fractions:"):
        assert part in page, part
    assert readable.to_html(errors) in page and "<td>a &lt; b</td>" in page


def test_report_opens_with_the_answer_and_ends_with_the_claims(errors, pictures):
    page = make_report(errors, pictures)
    parts = ["nearest to the truth", "Caption of the lead.", "Verdicts", "spectra.", "Dataset poisson", 'id="provenance"']
    parts[3:3] = ['id="studied"', 'id="errors"', "Distance to the limit</h3>"]
    parts.insert(-1, 'id="claims"')
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    learnt = [row for row in where(errors, percent=100) if row["method"] != "exact"]
    smallest = min(learnt, key=lambda row: row["l2_sample"])
    assert f"with 100 % of the pairs {smallest['run']} is nearest to the truth ({smallest['l2_sample']:.1f} ±" in page
    verdicts = re.findall(r'<span class="verdict">(.*?)</span> <span>(.*?)</span></li>', page)
    assert verdicts == [
        ("Holds", "a &lt; b (found 1, between 0.9 and 1.1)."),
        ("Does not hold", "c (found 2)."),
        ("Open", "1 of 3 claims is about runs, problems or shares of pairs that this study lacks."),
    ]


def test_report_is_well_formed(errors, pictures):
    stack: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "link", "img", "br"):
                stack.append(tag)

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Balance().feed(make_report(errors, pictures))
    assert not stack

"""The distance to the limit and the claims, from samples whose errors are known. Seeds are stated where used."""

import numpy as np
import pytest
from test_evaluation import FIELDS, make_samples

from ddis.evaluation import claims, limit
from ddis.evaluation.bootstrap import ENOUGH, bca, estimate
from ddis.evaluation.metrics import fine_power
from ddis.evaluation.scores import common, field_scores, find
from ddis.evaluation.verdicts import fields_to_decide, verdict
from ddis.text import csv_text, pipe_table

SOLVER = {"operator": "solver", "pairs": None}


def case(run: str, method: str, error: float, seed: int, percent: float = 100, size: int = 8, **attributes):
    costs = {"seconds_per_sample": 1.0, "prior_evaluations": 10.0, "operator_evaluations": 10.0}
    return make_samples(run, percent, size, error, seed=seed, **{"method": method, **costs, **attributes})


@pytest.fixture(scope="module")
def study():
    """Samples of a study with every part, at errors that grow from the limit on."""
    return [
        case("ddis", "ddis", 0.3, 40, seconds_per_sample=50.0, operator_evaluations=2000.0),
        case("ddis", "ddis", 0.4, 45, percent=1),
        case("ddis-gn", "ddis-gn", 0.16, 20),
        case("ddis-gn", "ddis-gn", 0.2, 25, percent=1),
        case("solver", "ddis-gn", 0.12, 30, **SOLVER),
        case("fundps", "fundps", 0.5, 50, size=2, operator=None),
        case("exact", "exact", 0.1, 10, **SOLVER),
    ]


@pytest.fixture(scope="module")
def scores(study):
    return [field_scores(samples) for samples in study]


def test_an_interval_of_a_mean_is_that_of_the_central_limit():
    values = np.random.default_rng(1).standard_normal(400)
    value, low, high = estimate(lambda mean: mean, values)
    assert low is not None and high is not None
    assert value == pytest.approx(values.mean())
    assert [low, high] == pytest.approx(value + np.array([-1.96, 1.96]) * values.std() / 20, abs=0.01)


def test_intervals_of_ratios_cover_the_truth():
    """Ratio of the means of paired log-normal errors, true value 1.2: 300 studies of 32 fields, seeds 0 to 299."""
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        difficulty = np.exp(0.4 * rng.standard_normal(32))
        first, second = (difficulty * np.exp(0.1 * rng.standard_normal(32)) for _ in range(2))
        _, low, high = estimate(np.divide, 1.2 * first, second)
        hits += low <= 1.2 <= high
    assert 0.89 < hits / 300 < 0.98


def test_an_interval_of_few_fields_covers_as_often_as_it_says():
    """Means of 5 normal values, 2,000 studies: 95 % ± 1.5 % (3 standard errors); plain percentiles cover 83 %."""
    values = np.random.default_rng(3).standard_normal((2000, 5))
    hits = [low <= 0 <= high for _, low, high in (estimate(lambda mean: mean, row) for row in values)]
    assert np.mean(hits) > 0.9


def test_bca_follows_the_skewness_of_the_values():
    """Means of 40 exponential values, 400 studies, seed 4: 95 % ± 3.3 % (3 standard errors), and further up than down."""
    values = np.random.default_rng(4).exponential(size=(400, 40))
    found = [bca(lambda mean: mean, row) for row in values]
    assert 0.905 < np.mean([low <= 1 <= high for _, low, high in found]) < 0.985
    assert np.mean([high - value for value, _, high in found]) > 1.15 * np.mean([value - low for value, low, _ in found])


def test_few_fields_or_others_have_the_intervals_of_all_tables():
    rng = np.random.default_rng(5)
    few, other, same = rng.random(ENOUGH - 1), rng.random(ENOUGH + 3), np.ones(ENOUGH)
    for values in ((few, few + 1), (other, rng.random(ENOUGH)), (same, same)):
        assert bca(np.divide, *values) == estimate(np.divide, *values)


@pytest.mark.parametrize(
    ("found", "bounds", "expected"),
    [
        ((1.0, 0.8, 1.4), {"at_most": 1.2}, 64),  # half as wide above would do: four times 16
        ((1.0, 0.8, 1.4), {"at_most": 0.9}, 64),
        ((1.0, 0.8, 1.4), {"at_least": 0.9, "at_most": 1.4}, 64),
        ((1.0, 0.8, 1.4), {"at_most": 1.0}, None),
        ((1.0, None, None), {"at_most": 1.2}, None),
        ((1.0, 0.8, np.inf), {"at_most": 1.2}, None),
    ],
)
def test_fields_to_decide_follow_the_root_of_their_number(found, bounds, expected):
    decided = fields_to_decide(found, 16, **bounds)
    assert decided == expected or abs(decided - expected) <= 1


def test_fine_power_is_the_logarithm_of_what_the_spectrum_is_multiplied_by():
    field = np.random.default_rng(6).standard_normal((2, 16, 16))
    assert fine_power(0.5 * field, field) == pytest.approx(np.log(0.25))
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16)))
    smooth = np.fft.ifft2(np.where(k < 0.25, 1, 0.1) * np.fft.fft2(field)).real
    assert fine_power(smooth, field) == pytest.approx(np.log(0.01), abs=1e-6)


def test_pairing_makes_the_interval_narrower():
    rng = np.random.default_rng(2)
    difficulty = np.exp(0.5 * rng.standard_normal(64))
    paired = estimate(np.divide, 1.1 * difficulty, difficulty)
    mixed = estimate(np.divide, 1.1 * difficulty, rng.permutation(difficulty))
    assert paired[2] - paired[1] < 1e-9 < 0.1 < mixed[2] - mixed[1]


def test_one_field_gives_no_interval():
    assert estimate(np.divide, [2.0], [4.0]) == (0.5, None, None)


def test_scores_are_those_of_the_first_samples(study, scores):
    members, truth = study[0].coefficient.astype(float), study[0].coefficient_true.astype(float)
    for k in (1, 3, 8):
        expected = np.linalg.norm(members[:, :k].mean(axis=1) - truth, axis=(1, 2)) / np.linalg.norm(truth, axis=(1, 2))
        np.testing.assert_allclose(scores[0].l2_mean[:, k - 1], 100 * expected, rtol=1e-5)
    np.testing.assert_allclose(scores[0].l2_sample[:, 0], scores[0].l2_mean[:, 0])


def test_scores_of_a_failed_field_are_nan_and_leave_the_comparison(study):
    broken = case("ddis", "ddis", 0.3, 40)
    broken.coefficient[2, 1, 0, 0] = np.inf
    ours, exact = field_scores(broken), field_scores(study[-1])
    fields, k = common(ours, exact)
    assert k == 8 and fields.tolist() == [True, True, False, True, True, True]
    [row] = limit.ratio_rows([ours, exact])
    assert row["n_fields"] == FIELDS - 1


def test_a_run_whose_fields_all_failed_does_not_end_the_tables(study):
    broken = [case("ddis", "ddis", 0.3, 40), case("fundps", "fundps", 0.5, 50, size=2, operator=None)]
    for samples in broken:
        samples.coefficient[:] = np.nan
    scores = [field_scores(samples) for samples in [*broken, study[-1]]]
    assert not scores[0].finite.any() and np.isnan(scores[0].spectral).all() and scores[0].calibration is None
    limit.to_markdown(limit.ratio_rows(scores), limit.split_rows(scores))
    verdicts = {row["claim"]: row["verdict"] for row in claims.claim_rows(scores)}
    assert verdicts["poisson, sparse: ddis does not diverge"] == "no"


def test_runs_on_other_fields_are_refused(study):
    other = case("ddis", "ddis", 0.3, 40)
    other.coefficient_true = other.coefficient_true[::-1].copy()
    with pytest.raises(ValueError, match="exact at 100 % has other test fields than ddis"):
        limit.ratio_rows([field_scores(other), field_scores(study[-1])])


def test_ratios_are_at_the_same_number_of_samples(scores):
    rows = {(row["run"], row["percent"]): row for row in limit.ratio_rows(scores)}
    assert len(rows) == len(scores) - 1
    fundps, exact = find(scores, method="fundps"), find(scores, method="exact")
    row = rows["fundps", "100"]
    assert row["n_samples"] == 2
    assert row["l2_mean_ratio"] == pytest.approx(fundps.l2_mean[:, 1].mean() / exact.l2_mean[:, 1].mean())
    assert row["spectral_ratio"] == pytest.approx(fundps.spectral.mean() / exact.spectral[:, :2].mean())
    assert all(row["l2_mean_ratio_low"] < row["l2_mean_ratio"] < row["l2_mean_ratio_high"] for row in rows.values())


def test_exact_samples_of_another_seed_are_at_the_limit(study):
    """Truth, run and `exact` from one Gaussian posterior per field: the ratio is 1 up to its interval. Seeds 3 and 4."""
    rng = np.random.default_rng(3)
    run, exact = case("ddis-gn", "ddis-gn", 0.1, 1, **SOLVER), case("exact", "exact", 0.1, 1, **SOLVER)
    centre = exact.coefficient_true + 0.05 * rng.standard_normal(exact.coefficient_true.shape)
    for samples, seed in ((run, 3), (exact, 4)):
        noise = np.random.default_rng(seed).standard_normal(samples.coefficient.shape)
        samples.coefficient = (centre[:, None] + 0.05 * noise).astype(np.float32)
    [row] = limit.ratio_rows([field_scores(run), field_scores(exact)])
    assert row["l2_mean_ratio"] == pytest.approx(1, abs=0.05)
    assert row["l2_mean_ratio_low"] - 0.02 < 1 < row["l2_mean_ratio_high"] + 0.02


def parts(scores, run: str, percent: str = "100") -> dict[str, float]:
    return {r["part"]: r["l2_squared"] for r in limit.split_rows(scores) if (r["run"], r["percent"]) == (run, percent)}


def test_parts_add_up_to_the_squared_error(scores):
    squared = {(s.attributes["run"], s.attributes["percent"]): np.square(s.l2_mean[:, -1]).mean() for s in scores}
    found = parts(scores, "ddis")
    assert list(found) == ["limit", "prior", "operator", "sampler", "total"]
    assert found["limit"] == pytest.approx(squared["exact", 100])
    assert found["prior"] == pytest.approx(squared["solver", 100] - squared["exact", 100])
    assert found["operator"] == pytest.approx(squared["ddis-gn", 100] - squared["solver", 100])
    assert found["sampler"] == pytest.approx(squared["ddis", 100] - squared["ddis-gn", 100])
    assert found["total"] == pytest.approx(squared["ddis", 100])
    assert parts(scores, "ddis", "1")["operator"] == pytest.approx(squared["ddis-gn", 1] - squared["solver", 100])


def test_parts_that_do_not_apply_or_cannot_be_told_apart(scores):
    assert list(parts(scores, "ddis-gn")) == ["limit", "prior", "operator", "total"]
    assert list(parts(scores, "solver")) == ["limit", "prior", "total"]
    assert list(parts(scores, "fundps")) == ["limit", "joint prior and sampler", "total"]
    without = [s for s in scores if s.attributes["run"] != "solver"]
    assert list(parts(without, "ddis")) == ["limit", "prior and operator", "sampler", "total"]
    alone = [s for s in scores if s.attributes["method"] in ("ddis", "exact")]
    assert list(parts(alone, "ddis")) == ["limit", "prior and operator and sampler", "total"]
    assert limit.split_rows([s for s in scores if s.attributes["method"] != "exact"]) == []


def test_tables_as_text(scores):
    ratios, splits = limit.ratio_rows(scores), limit.split_rows(scores)
    lines = csv_text(ratios, limit.RATIO_COLUMNS).splitlines()
    assert lines[0] == (
        "problem,observation,run,percent,n_fields,n_samples,l2_mean_ratio,l2_mean_ratio_low,l2_mean_ratio_high,"
        "spectral_ratio,spectral_ratio_low,spectral_ratio_high"
    )
    assert lines[1].startswith("poisson,sparse,ddis,100,6,8,") and len(lines) == len(scores)
    text = limit.to_markdown(ratios, splits)
    assert f"{ratios[0]['l2_mean_ratio']:.3g} [{ratios[0]['l2_mean_ratio_low']:.3g}" in text and "seed 0" in text
    assert "closed-form" in limit.to_markdown([], [])
    assert pipe_table(["a|b"], [["1"]]) == "| a\\|b |\n|---|\n| 1 |"


@pytest.mark.parametrize(
    ("found", "bounds", "expected"),
    [
        ((1.0, 0.9, 1.1), {"at_most": 1.2}, "yes"),
        ((1.0, 0.9, 1.1), {"at_most": 0.8}, "no"),
        ((1.0, 0.9, 1.1), {"at_most": 1.05}, "inconclusive"),
        ((1.0, 0.9, 1.1), {"at_least": 0.87, "at_most": 1.13}, "yes"),
        ((1.0, 0.9, 1.1), {"at_least": 1.2}, "no"),
        ((0.04, None, None), {"at_most": 0.05}, "yes"),
        ((float("inf"), None, None), {"at_most": 100.0}, "no"),
        ((None, None, None), {"at_most": 1.0}, "inconclusive"),
    ],
)
def test_a_claim_is_decided_by_its_whole_interval(found, bounds, expected):
    assert verdict(found, **bounds) == expected


def test_claims_are_computed_from_the_runs(scores):
    rows = claims.claim_rows(scores)
    ours = {row["claim"]: row for row in rows}
    assert list(rows[0]) == claims.COLUMNS and len(ours) == len(rows)
    ddis, fundps = find(scores, method="ddis", percent=100), find(scores, method="fundps")
    row = ours["sparse: l2 of ddis 20.9 % below that of the joint model at 100 % of the pairs, poisson"]
    assert row["published"] == 20.9
    assert row["ours"] == pytest.approx(100 * (1 - ddis.l2_sample.mean() / fundps.l2_sample.mean()))
    row = ours["sparse: l2 of ddis 11 % below that of the joint model at 100 % of the pairs, mean over problems"]
    assert row["ours"] is None and row["verdict"] == "inconclusive" and row["published"] == 11
    row = ours["poisson, sparse: ddis-gn takes at most 1/20 of the seconds of ddis"]
    assert row["ours"] == pytest.approx(0.02) and row["low"] is None and row["verdict"] == "yes"
    row = ours["poisson, sparse: ddis-gn takes at most 1/20 of the evaluations of ddis"]
    assert row["ours"] == pytest.approx(20 / 2010)
    assert ours["poisson, sparse: ddis does not diverge"]["ours"] == max(
        s.l2_sample.max() for s in scores if s.attributes["method"] == "ddis"
    )


def test_averages_over_problems_need_all_problems(scores):
    """The same runs under the three benchmark problems: the average is that of one of them."""
    copies = [
        field_scores(case(run, run, error, seed, problem=problem, pde=problem, operator=operator))
        for problem in ("poisson", "helmholtz", "navier-stokes")
        for run, error, seed, operator in (("ddis", 0.3, 40, "fno"), ("fundps", 0.5, 50, None))
    ]
    rows = claims.claim_rows(copies)
    assert rows[0]["ours"] == pytest.approx(rows[1]["ours"]) and rows[0]["verdict"] == "yes"
    assert rows[0]["low"] < rows[0]["ours"] < rows[0]["high"]


def test_a_study_without_the_runs_leaves_claims_open(scores):
    rows = claims.claim_rows([s for s in scores if s.attributes["method"] == "exact"])
    assert rows and all(row["ours"] is None and row["verdict"] == "inconclusive" for row in rows)
    lacking = "claims are about runs, problems or shares of pairs that this study lacks."
    assert claims.to_markdown(rows) == f"{len(rows)} of {len(rows)} {lacking}\n"
    rows = claims.claim_rows(scores)
    shown = [row for row in rows if row["ours"] is not None]
    text = claims.to_markdown(rows)
    assert text.count("\n| ") == len(shown) + 1 and f"{len(rows) - len(shown)} of {len(rows)} {lacking}" in text


def test_the_equation_in_the_loss_is_compared_with_the_same_method_without(scores):
    helped = case("helped", "ddis", 0.3, 45, percent=1, operator="physics-0.3")
    rows = {row["claim"]: row for row in claims.claim_rows([*scores, field_scores(helped)])}
    row = rows["poisson, sparse: the equation in the operator's loss helps ddis at 1 % of the pairs (helped)"]
    without = find(scores, method="ddis", percent=1)
    expected = 100 * (1 - field_scores(helped).l2_sample.mean() / without.l2_sample.mean())
    assert row["ours"] == pytest.approx(expected) and row["ours"] > 10 and row["verdict"] == "yes"
    assert row["published"] == 11.4 and row["n_fields"] == FIELDS


def test_an_open_claim_says_how_many_fields_would_decide_it(scores):
    rows = [row for row in claims.claim_rows(scores) if row["verdict"] == "inconclusive" and row["ours"] is not None]
    assert rows and all(row["fields_to_decide"] > row["n_fields"] == FIELDS for row in rows)
    assert f"about {rows[0]['fields_to_decide']:,} fields would decide it, these are {FIELDS}" in claims.to_markdown(rows)

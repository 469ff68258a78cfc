"""Simulation-based calibration and TARP against closed forms, on fields whose posterior is known. Seeds are stated."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import ddis
from ddis.data.seen import Seen
from ddis.data.store import Samples, read_samples, write_samples
from ddis.evaluation import calibration_table, sbc
from ddis.evaluation.scores import field_scores
from ddis.evaluation.tarp import distances, expected_coverage
from ddis.evaluation.uniformity import DRAWS, power, uniformity
from ddis.observe.base import Placed
from ddis.observe.simulated import simulated

NOISE, SEED = 0.5, 8
RNG = np.random.default_rng


def posterior_samples(
    seed: int, fields: int = 48, size: int = 8, width: float = 1.0, shift: float = 0.0, seen: float = 0.5
) -> Samples:
    """Independent standard normal nodes, about half of them observed with noise; exact samples, or wider and shifted ones.

    The solution is the coefficient. With seen = 0 nothing is learnt from the data: samples of the prior.
    """
    rng, shape = RNG(seed), (6, 6)
    truth = rng.standard_normal((fields, *shape))
    mask = rng.random((fields, *shape)) < 0.5
    observation = np.where(mask, truth + NOISE * rng.standard_normal(truth.shape), 0)
    known = mask & (seen > 0)
    mean = np.where(known, observation / (1 + NOISE**2), 0) + shift
    std = width * np.where(known, NOISE / np.sqrt(1 + NOISE**2), 1)
    drawn = (mean[:, None] + std[:, None] * rng.standard_normal((fields, size, *shape))).astype(np.float32)
    truth = truth.astype(np.float32)
    names = {"problem": "identity", "observation": "half", "run": "exact", "percent": 100.0, "noise": NOISE, "solution_std": 1.0}
    moments = drawn.mean(axis=1), drawn.std(axis=1, ddof=1)
    return Samples(drawn, *moments, truth, truth, mask, observation.astype(np.float32), solution=drawn, attributes=names)


def p_value(samples: Samples) -> float:
    found = sbc.verdict(samples)
    assert found is not None
    return found.test.p_value


def test_exact_samples_are_a_fault_in_five_percent_of_studies():
    """200 studies of 16 fields, seeds 0 to 199: a share of 0.05 with a standard error of 0.015."""
    p_values = np.array([p_value(posterior_samples(seed, fields=16)) for seed in range(200)])
    assert abs((p_values <= 0.05).mean() - 0.05) < 4 * 0.0154
    # A uniform distribution of 200 values: the largest difference exceeds 0.137 with a probability of 0.001.
    assert stats.kstest(p_values, "uniform").statistic < 0.137


@pytest.mark.parametrize(("width", "shift"), [(0.6, 0.0), (1.6, 0.0), (1.0, 0.4)])
def test_narrow_wide_and_shifted_samples_are_found_out(width, shift):
    found = [sbc.verdict(posterior_samples(seed, width=width, shift=shift)) for seed in range(5)]
    assert [v and v.word for v in found] == [sbc.FAULT] * 5


def test_only_the_misfit_sees_that_samples_ignore_the_data():
    found = sbc.verdict(posterior_samples(3, seen=0))
    assert found is not None and found.word == sbc.MISFIT and found.worst == "misfit"
    assert min(p for name, p in found.test.p_values.items() if name != "misfit") > 0.01


def test_without_noise_there_is_no_misfit():
    samples = posterior_samples(4)
    exact = replace(samples, attributes=samples.attributes | {"noise": 0.0})
    found = sbc.verdict(exact)
    assert found is not None and set(found.test.p_values) == set(sbc.QUANTITIES) - {"misfit"}


def joined_samples(noises: tuple[float, float], off: float = 0.0) -> Samples:
    """Exact samples of 18 nodes with the first noise and 18 with the second; those of the second further off their values."""
    rng, fields, size = RNG(SEED), 48, 8
    noise = np.repeat(np.array(noises), 18)
    truth = rng.standard_normal((fields, 36))
    values = truth + noise * rng.standard_normal(truth.shape)
    mean, std = values / (1 + noise**2), noise / np.sqrt(1 + noise**2)
    drawn = mean[:, None] + np.hypot(std, off * (np.arange(36) >= 18)) * rng.standard_normal((fields, size, 36))
    places = np.broadcast_to(np.arange(36)[:, None], (fields, 36, 1))
    seen = Seen(values, places, np.ones(places.shape), np.ones(36), noise)
    plain = posterior_samples(0, fields=fields, size=size)
    truth, drawn = truth.reshape(fields, 6, 6), drawn.reshape(fields, size, 6, 6)
    names = plain.attributes | {"noise": max(noises)}
    return replace(
        plain, coefficient=drawn, solution=drawn, coefficient_true=truth, solution_true=truth, seen=seen, attributes=names
    )


def test_every_value_counts_in_units_of_its_own_noise():
    """Samples that are three times too wide at the precise nodes: the misfit sees it, not where the large noise hides it."""
    samples = joined_samples((1.0, 0.05), off=0.15)
    found, hidden = (sbc.verdict(each) for each in (samples, replace(samples, seen=replace(samples.seen, noise=np.ones(36)))))
    assert found is not None and hidden is not None
    assert found.worst == "misfit" and found.test.p_values["misfit"] < 0.01 < hidden.test.p_values["misfit"]
    exact = sbc.verdict(joined_samples((1.0, 0.05)))
    assert exact is not None and exact.test.p_values["misfit"] > 0.01


def test_a_file_keeps_the_noise_of_every_value(tmp_path):
    problem, size = ddis.problem("poisson", resolution=8), 8
    sensors = ddis.observe.nodes([9, 10, 11], noise=0.1) + ddis.observe.coefficient([[0.5, 0.5]], noise=0.02)
    a = problem.sample_coefficients([0], size, SEED)
    fields = a.float().numpy(), problem.solve(a).float().numpy()
    placed = Placed(sensors, problem.solution_space(size), problem.coefficient_space(size))
    seen = simulated(placed, *fields, {"solution": np.array([2.0]), "coefficient": np.array([3.0])}, 2.0, SEED, [0]).seen()
    assert seen is not None and seen.noise == pytest.approx([0.1, 0.1, 0.1, 0.02])
    for noise in (seen.noise, None):  # older files have none
        write_samples(tmp_path / "samples.h5", replace(joined_samples((1.0, 0.1)), seen=replace(seen, noise=noise)))
        found = read_samples(tmp_path / "samples.h5").seen
        assert found is not None and (found.noise is None if noise is None else np.array_equal(found.noise, noise))
        assert np.array_equal(found.units, [2, 2, 2, 3])


def test_older_files_without_the_noise_of_every_value_have_no_misfit_test():
    samples = joined_samples((1.0, 0.05))
    found = sbc.verdict(replace(samples, seen=replace(samples.seen, noise=None)))
    assert found is not None and "misfit" not in found.test.p_values


def test_values_without_noise_beside_others_do_not_count_in_the_misfit():
    """The truth fits them exactly, samples within the floor of R; of the noisy values alone there is no fault."""
    samples = joined_samples((0.02, 0.0), off=0.1)
    found, before = (sbc.verdict(each) for each in (samples, replace(samples, seen=replace(samples.seen, noise=np.ones(36)))))
    assert found is not None and before is not None
    assert before.test.p_values["misfit"] < 0.01 < found.test.p_values["misfit"]


def test_a_quantity_that_the_problem_fixes_is_not_tested():
    """Truths with mean 0 but for float32; samples miss it by 1e-3, as those of a network do, which is no fault of a posterior."""
    samples = posterior_samples(4)
    samples.coefficient += 1e-3 - samples.coefficient.mean(axis=(2, 3), keepdims=True)
    samples.coefficient_true -= samples.coefficient_true.mean(axis=(1, 2), keepdims=True)
    found = sbc.verdict(samples)
    assert found is not None and set(found.test.p_values) == set(sbc.QUANTITIES) - {"mean"} and found.word == sbc.SOUND
    varying = np.linspace(-1e-3, 1e-3, len(samples.coefficient), dtype=np.float32)[:, None, None]
    told = sbc.verdict(replace(samples, coefficient_true=samples.coefficient_true + varying))
    assert told is not None and told.test.p_values["mean"] < 0.01


def test_few_fields_decide_nothing():
    found = sbc.verdict(posterior_samples(5, fields=6))
    assert found is not None and found.word == sbc.FEW and found.power < 0.5
    assert sbc.verdict(posterior_samples(5, fields=1)) is None and sbc.verdict(posterior_samples(5, size=3)) is None
    failed = posterior_samples(5, fields=6)
    failed.coefficient[2, 1, 0, 0] = np.nan
    assert (left := sbc.verdict(failed)) is not None and left.fields == 5


def test_a_field_that_failed_says_nothing_of_the_others():
    """Put at the end, where only the last field takes its reference point from the next, it changes nothing."""
    whole = posterior_samples(5, width=0.6)
    failed = replace(whole, coefficient=whole.coefficient.copy())
    failed.coefficient[-1, 1, 0, 0] = np.nan
    assert not np.isnan(list(sbc.quantities(failed)["mean"])).any()
    for name in set(sbc.QUANTITIES) - {"distance"}:
        ranks = [np.argsort(sbc.quantities(samples)[name], axis=1)[:47] for samples in (whole, failed)]
        assert np.array_equal(*ranks), name


def test_power_is_the_share_of_narrow_samples_that_are_found_out():
    """Four independent Gaussian quantities of half the spread; 200 studies: a standard error of at most 0.035."""
    rng, found = RNG(6), []
    for _ in range(200):
        pool = rng.standard_normal((24, 9, 4)) * np.concatenate([[1.0], np.full(8, 0.5)])[:, None]
        found.append(uniformity({"four": pool}).p_value <= 0.05)
    assert np.mean(found) == pytest.approx(power(24, 8), abs=4 * 0.035)


def test_the_statistic_is_that_of_its_definition():
    """Against binomial probabilities of SciPy, and a permutation of one's own."""
    rng = RNG(7)
    pool = rng.standard_normal((10, 6, 1))
    pool[:, 0] += 0.8
    found = uniformity({"x": pool})
    ranks = (pool[:, 1:] < pool[:, :1]).sum(axis=1)
    assert np.array_equal(found.ranks["x"], ranks)
    assert np.allclose(found.shares["x"], [[(ranks < j).mean() for j in range(1, 6)]])

    def statistic(ranks):
        counts, z = np.array([(ranks < j).sum(axis=-1) for j in range(1, 6)]), np.arange(1, 6)[:, None] / 6
        return 2 * np.minimum(stats.binom.cdf(counts, 10, z), stats.binom.sf(counts - 1, 10, z)).min(axis=0)

    null = statistic(rng.integers(6, size=(20000, 10)))
    expected = (null <= statistic(ranks.T) + 1e-12).mean()
    assert found.p_value == pytest.approx(expected, abs=4 * np.sqrt(expected / DRAWS) + 1e-3)
    outside = (found.shares["x"] < found.band[0] - 1e-12) | (found.shares["x"] > found.band[1] + 1e-12)
    assert outside.any() == (found.p_value <= 0.05)


def test_ties_are_broken_evenly():
    """A quantity with one value: 4000 fields of 5 ranks, each 800 times with a standard deviation of 25."""
    ranks = uniformity({"constant": np.zeros((4000, 5, 1))}).ranks["constant"]
    assert np.abs(np.bincount(ranks.ravel(), minlength=5) - 800).max() < 4 * 25.3


def test_expected_coverage_is_that_of_the_algorithm_written_out():
    """Algorithm 2 of the paper, field by field; credibilities at multiples of 1 / (K + 1), where no convention enters."""
    pool = RNG(8).standard_normal((30, 6, 2, 16)) * np.array([1.0, 5.0])[:, None]
    nearness = distances(pool)
    chosen = np.random.default_rng(0).integers(6, size=30)
    shares = []
    for field in range(30):
        following = (field + 1) % 30
        reference = pool[following, chosen[following]] / pool.std(axis=(0, 1, 3))[:, None]
        away = [float(np.linalg.norm(member / pool.std(axis=(0, 1, 3))[:, None] - reference)) for member in pool[field]]
        assert nearness[field] == pytest.approx(away)
        shares.append(sum(each < away[0] for each in away[1:]) / 5)
    ranks = (nearness[:, 1:] < nearness[:, :1]).sum(axis=1)
    for j in range(1, 6):
        value, low, high = expected_coverage(ranks, 5, j / 6)
        assert value == pytest.approx(np.mean([share < j / 5 for share in shares])) and low < value < high


def test_expected_coverage_of_samples_that_are_too_narrow():
    """With a far reference on a line, ranks are those of the value: coverage of c is Φ(w Φ^-1(c)) for spread w, many samples."""
    rng, size, fields, width = RNG(9), 99, 4000, 0.5
    truth, samples = rng.standard_normal(fields), width * rng.standard_normal((fields, size))
    ranks = (np.abs(samples + 1e6) < np.abs(truth + 1e6)[:, None]).sum(axis=1)
    for c in (0.1, 0.5, 0.9):
        expected = stats.norm.cdf(width * stats.norm.ppf(c))
        value, low, high = expected_coverage(ranks, size, c)
        assert value == pytest.approx(expected, abs=4 * np.sqrt(0.25 / fields)) and low < expected < high


def test_the_interval_of_expected_coverage_is_wilsons():
    ranks = np.array([0] * 30 + [8] * 10)
    expected = stats.binomtest(30, 40).proportion_ci(method="wilson")
    assert expected_coverage(ranks, 8, 0.5) == pytest.approx((0.75, expected.low, expected.high))


def test_the_table_has_a_row_for_each_run_with_enough_samples():
    runs = [posterior_samples(10), posterior_samples(11, width=0.5), posterior_samples(12, size=2)]
    rows = calibration_table.calibration_rows([field_scores(run) for run in runs])
    assert [row["verdict"] for row in rows] == [sbc.SOUND, sbc.FAULT] and set(rows[0]) == set(calibration_table.COLUMNS)
    assert rows[1]["p_value"] < 0.01 < rows[0]["p_value"] and rows[0]["tarp90_low"] <= 0.9 <= rows[0]["tarp90_high"]
    text = calibration_table.to_markdown(rows)
    assert "| identity | half | exact | 100 | 48 | 8 | fault found | " in text
    assert "not tested" in calibration_table.to_markdown([])

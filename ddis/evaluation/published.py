"""Figures of the literature, and the setting that they are for."""

from typing import Any

PUBLISHED: dict[tuple[str, str, float], tuple[float, float | None]] = {
    ("poisson", "ddis", 100): (15.78, 0.074),
    ("helmholtz", "ddis", 100): (15.08, 0.044),
    ("navier-stokes", "ddis", 100): (8.93, 0.165),
    ("poisson", "fundps", 100): (19.96, 0.192),
    ("helmholtz", "fundps", 100): (17.16, 0.140),
    ("navier-stokes", "fundps", 100): (8.99, 0.382),
    ("poisson", "diffusionpde", 100): (21.10, None),
    ("helmholtz", "diffusionpde", 100): (19.07, None),
    ("navier-stokes", "diffusionpde", 100): (9.63, None),
    ("poisson", "ddis", 1): (18.70, None),
    ("helmholtz", "ddis", 1): (16.40, None),
    ("navier-stokes", "ddis", 1): (12.05, None),
    ("poisson", "fundps", 1): (35.81, None),
    ("helmholtz", "fundps", 1): (41.69, None),
    ("navier-stokes", "fundps", 1): (13.65, None),
}
"""(pde, method, percent of pairs) -> relative l2 in percent, spectral error; figures of arXiv 2601.23280."""

PUBLISHED_PHYSICS = {"poisson": 16.56, "helmholtz": 16.05}
"""pde -> relative l2 in percent of `ddis` at 1 % of the pairs, its operator trained with the equation too (arXiv 2601.23280)."""

PUBLISHED_BUDGET = (
    "Published for DiffusionPDE in the time that arXiv 2601.23280 gives to all: poisson 74.68 (E_s 0.566), helmholtz 46.10 "
    "(0.315), navier-stokes 32.78 (2.099)."
)
PUBLISHED_RATES = (
    "Published shares of wrong nodes of darcy: FunDPS 5.18 % (arXiv 2505.17004), DiffusionPDE 7.87 % (arXiv 2406.17763)."
)

PUBLISHED_SETTING = (
    "Published figures (arXiv 2601.23280; DiffusionPDE: its 2,000-step version) are for 128 x 128 nodes, 500 noiseless "
    "observations, 50,000 training pairs and networks of that paper's size: compare them with a row only if its "
    "setting, given above, is the same."
)

PARAMETERS: dict[str, dict[str, Any]] = {
    "poisson": {"alpha": (1.5, 3.0), "tau": (2.0, 4.0)},
    "darcy": {"coefficient": "two-valued", "alpha": 2.0, "tau": 3.0, "low": 3.0, "high": 12.0},
}
"""Of the problems of PosteriorBench (arXiv 2609.20794) that are ours too, by pde."""

POSTERIORS: dict[tuple[str, str], tuple[float, float, float, float, float, float]] = {
    ("darcy", "DDIS"): (0.0791, 0.3365, 0.1759, 3.2554, 0.0226, 7.3),
    ("darcy", "FunDPS"): (0.0886, 0.4010, 0.2210, 3.2162, 0.0154, 6.7),
    ("darcy", "Fun-DDPS"): (0.0858, 0.3983, 0.2176, 3.0830, 0.0116, 7.3),
    ("darcy", "DiffusionPDE"): (0.1745, 0.6708, 0.3306, 6.4426, 0.0506, 40.0),
    ("darcy", "ES-MDA"): (0.4632, 1.5534, 0.5678, 46.9557, 0.1187, 0.1),
    ("darcy", "ECI"): (0.5242, 1.3192, 0.6380, 53.5336, 0.1355, 0.8),
    ("poisson", "DDIS"): (0.0997, 0.3199, 0.2641, 2.2372, 0.0702, 9.6),
    ("poisson", "FunDPS"): (0.2910, 0.7320, 0.7020, 3.6590, 0.0859, 7.3),
    ("poisson", "Fun-DDPS"): (0.1390, 0.3894, 0.3447, 2.2581, 0.0319, 7.2),
    ("poisson", "DiffusionPDE"): (0.8436, 2.1091, 0.6612, 40.1473, 0.5854, 39.8),
    ("poisson", "ES-MDA"): (1.0047, 5.0163, 0.6611, 46.4426, 2.4232, 0.1),
    ("poisson", "ECI"): (2.1940, 7.7319, 0.7622, 70.3402, 8.5771, 0.4),
}
"""(pde, method): mean, std, MMD, SWD and spectrum, means over the cases, and minutes for 100 samples; its Table 2."""

POSTERIORS_SETTING = (
    "Published rows (PosteriorBench, arXiv 2609.20794): 128 x 128 nodes, 128 sensors, 100 samples of each case, against draws of "
    "the prior, weighted with a kernel on the mean absolute error, width 1e-4; minutes on a B200 GPU. Compare rows of ours only "
    "if their setting is the same: likelihood mean-absolute asks the same question, and SWD grows with the nodes per side."
)

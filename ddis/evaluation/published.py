"""Figures of the literature, and the setting that they are for."""

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

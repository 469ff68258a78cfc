"""Why a joint model's guidance may vanish when pairs are few: the optimal denoiser of a finite set of pairs, in closed form.

    python benchmarks/guidance_attenuation.py

N pairs x_i = (a_i, u_i), each as probable as the others, are seen through noise, x_t = x_i + s n, n ~ N(0, I). Then

    w_i = exp(-||x_t - x_i||^2 / 2 s^2) / sum over j of the same        probability of pair i given x_t
    E[u | x_t] = sum w_i u_i                                            what the optimal joint denoiser predicts
    dE[u | x_t] / da_t = Cov_w(u, a) / s^2                              (1)
    Cov_w(u, a) = sum w_i u_i a_i' - (sum w_i u_i)(sum w_i a_i)'

for dw_i/da_t = w_i (a_i - sum w_j a_j) / s^2. The guidance of a misfit L(E[u | x_t]) is its gradient in u times (1). If one pair
k is nearer than all others, ||x_t - x_i||^2 >= ||x_t - x_k||^2 + g, then 1 - w_k <= (N - 1) exp(-g / 2 s^2), and from
Cov_w(u, a) = sum over i < j of w_i w_j (u_i - u_j)(a_i - a_j)'

    ||(1)|| <= (N - 1) exp(-g / 2 s^2) max|u_i - u_j| max|a_i - a_j| / s^2 :

guidance vanishes exponentially once s^2 is small against the gap g, which is the larger the fewer pairs there are. What vanishes
is the typical derivative: between two pairs E[u | x_t] jumps, so that its mean over x_t stays, as rare and large derivatives.

A decoupled model predicts G(E[a | a_t]), whose derivative is J_G Cov_w(a, a) / s^2, with weights of all coefficients, and of
a_t alone: it keeps what G has learnt from the pairs, but vanishes as well where coefficients are too few for s. With infinitely
many pairs of a Gaussian a ~ N(0, C), u = G a, (1) becomes the block of S (S + s^2 I)^-1, S the covariance of x, that leads from
a to u; it is smaller than the decoupled derivative, for u_t tells the joint denoiser some of what it would take from a_t.

The toy: a in R^4 with standard deviations 1, 1/2, 1/3, 1/4, u = G a with G orthogonal, 200 noisy fresh pairs as x_t. Then the
same weights on real fields: pairs of poisson, 32 x 32 nodes. Writes benchmarks/results/guidance_attenuation.md and
docs/paper/attenuation-32/mixture.png. A quarter of a minute on one core.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ddis.evaluation.figures.style import drawing, small_png
from ddis.files import atomic_path, write_text
from ddis.models.denoiser import SIGMA_DATA
from ddis.pde import make_problem
from ddis.priors.gaussian import default_noise
from ddis.text import pipe_table

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "guidance_attenuation.md"
PICTURE = ROOT / "docs" / "paper" / "attenuation-32" / "mixture.png"
SEED, STATES, ABUNDANT = 0, 200, 20_000
LEVELS, PAIRS = (2.0, 0.5, 0.2, 0.1), (10, 100, 1000, 10_000)
STANDARD = 1 / np.arange(1, 5)  # standard deviations of a
LABELS = ("joint", f"decoupled, {ABUNDANT:,} coefficients", "decoupled, coefficients of the pairs alone")
FIELD_LEVELS = (30.0, 10.0, 3.0, 1.0)

Array = NDArray[np.float64]


def weights(noisy: Array, known: Array, s: float) -> Array:
    """Probability [B, N] of each known point [N, d] given noisy ones [B, d] at noise s."""
    exponent = (noisy @ known.T - 0.5 * (known**2).sum(axis=1)) / s**2
    exponent -= exponent.max(axis=1, keepdims=True)
    found = np.exp(exponent)
    return found / found.sum(axis=1, keepdims=True)


def jacobian(w: Array, predicted: Array, known: Array, s: float) -> Array:
    """dE[predicted | x_t] / dx_t = Cov_w(predicted, known) / s^2 [B, p, d], of w [B, N], predicted [N, p], known [N, d]."""
    means = w @ predicted, w @ known
    second = np.stack([(row[:, None] * predicted).T @ known for row in w])
    return (second - means[0][:, :, None] * means[1][:, None, :]) / s**2


def joint(pairs: tuple[Array, Array], noisy: tuple[Array, Array], s: float) -> Array:
    """dE[u | x_t] / da_t, [B, m, d], of the optimal denoiser of the pairs a [N, d], u [N, m]."""
    w = weights(np.hstack(noisy), np.hstack(pairs), s)
    return jacobian(w, pairs[1], pairs[0], s)


def decoupled(coefficients: Array, operator: Array, noisy: Array, s: float) -> Array:
    """J_G dE[a | a_t] / da_t, [B, m, d], of the optimal denoiser of coefficients [N, d] and a linear operator [m, d]."""
    return operator @ jacobian(weights(noisy, coefficients, s), coefficients, coefficients, s)


def limits(covariance: Array, operator: Array, s: float) -> tuple[Array, Array]:
    """Both with infinitely many pairs of a ~ N(0, C), u = G a."""
    d = len(covariance)
    whole = np.block([[covariance, covariance @ operator.T], [operator @ covariance, operator @ covariance @ operator.T]])
    gain = whole @ np.linalg.inv(whole + s**2 * np.eye(len(whole)))
    return gain[d:, :d], operator @ covariance @ np.linalg.inv(covariance + s**2 * np.eye(d))


def regression(a: Array, u: Array) -> Array:
    """The linear operator [m, d] of pairs, by least squares."""
    return np.linalg.lstsq(a, u, rcond=None)[0].T


def typical(jacobians: Array) -> float:
    """Median of Frobenius norms [B, m, d]."""
    return float(np.median(np.linalg.norm(jacobians, axis=(-2, -1))))


def average(jacobians: Array) -> float:
    """Norm of the mean [m, d]."""
    return float(np.linalg.norm(jacobians.mean(axis=0)))


def toy(norm: Callable[[Array], float] = typical) -> dict[tuple[str, float], list[float]]:
    """Norms at each level, by kind and number of pairs."""
    rng = np.random.default_rng(SEED)
    d = len(STANDARD)
    operator = np.linalg.qr(rng.standard_normal((d, d)))[0]
    draw = lambda count: rng.standard_normal((count, d)) * STANDARD  # noqa: E731
    known, fresh = draw(ABUNDANT), draw(STATES)
    noise = rng.standard_normal((2, STATES, d))
    rows: dict[tuple[str, float], list[float]] = {}
    for s in LEVELS:
        noisy = fresh + s * noise[0], fresh @ operator.T + s * noise[1]
        found: dict[str, list[Array]] = {label: [] for label in LABELS}
        for count in PAIRS:
            pairs = known[:count], known[:count] @ operator.T
            learnt = regression(*pairs)
            found[LABELS[0]].append(joint(pairs, noisy, s))
            found[LABELS[1]].append(decoupled(known, learnt, noisy[0], s))
            found[LABELS[2]].append(decoupled(pairs[0], learnt, noisy[0], s))
        ends = [limit[None] for limit in limits(np.diag(STANDARD**2), operator, s)]
        for label, limit in zip(LABELS, (ends[0], ends[1], ends[1]), strict=True):
            for count, jacobians in zip((*PAIRS, np.inf), [*found[label], limit], strict=True):
                rows.setdefault((label, count), []).append(norm(jacobians))
    return rows


def effective(noisy: Array, known: Array, s: float) -> float:
    """How many of the known points share in the prediction, 1 / sum w_i^2, the median over the noisy ones."""
    return float(np.median(1 / (weights(noisy, known, s) ** 2).sum(axis=1)))


def real_fields(pairs: int = 10_000, states: int = 64) -> dict[tuple[str, float], list[float]]:
    """Effective number of poisson's pairs, and of its coefficients, 32 x 32 nodes, by level; noise as in a study's default."""
    problem = make_problem("poisson", {}, 32)
    a = problem.sample_coefficients(range(pairs + states), 32, SEED)
    fields = [x / x[:pairs].std() * SIGMA_DATA for x in (a, problem.solve(a))]
    basis = problem.coefficient_space(32).grid.basis
    root = default_noise(basis).spectrum(basis).sqrt()  # noise is white in these units
    flat = [(basis.forward(x.double()) / root).flatten(1).numpy() for x in fields]
    rng, rows = np.random.default_rng(SEED), dict[tuple[str, float], list[float]]()
    noise = rng.standard_normal((states, 2 * flat[0].shape[1]))
    for s in FIELD_LEVELS:
        for name, known in (("pairs", np.hstack(flat)), ("coefficients", flat[0])):
            noisy = known[pairs:] + s * noise[:, : known.shape[1]]
            for count in (100, pairs):
                rows.setdefault((name, count), []).append(effective(noisy, known[:count], s))
    return rows


def table(rows: Mapping[tuple[str, float], list[float]], levels: Sequence[float]) -> str:
    body = [[name, f"{count:,.0f}", *(f"{value:.3g}" for value in values)] for (name, count), values in rows.items()]
    return pipe_table(["denoiser", "of", *(f"s = {s:g}" for s in levels)], body, [False] + [True] * (1 + len(levels)))


def plot(rows: Mapping[tuple[str, float], list[float]]) -> Figure:
    """Norms against the number of pairs, a panel for each level, cut off at 1e-6."""
    with drawing():
        figure = Figure(figsize=(9.6, 3.0), layout="constrained")
        axes = figure.subplots(1, len(LEVELS), sharey=True)
        for place, (ax, s) in enumerate(zip(axes, LEVELS, strict=True)):
            for label, colour, style in zip(LABELS, ("#D55E00", "#0072B2", "#0072B2"), ("o-", "s-", "s:"), strict=True):
                ax.plot(PAIRS, [rows[label, count][place] for count in PAIRS], style, color=colour, label=label, ms=4)
            for label, colour, text in ((LABELS[0], "#D55E00", "joint"), (LABELS[1], "#0072B2", "decoupled")):
                ax.axhline(rows[label, np.inf][place], color=colour, ls="--", lw=1, label=f"{text}, infinitely many")
            ax.set(xscale="log", yscale="log", title=f"s = {s:g}", xlabel="pairs", ylim=(1e-6, 5))
            ax.set_xticks(PAIRS, [f"{count}" for count in PAIRS])
            ax.minorticks_off()
        axes[0].set_ylabel("norm of the Jacobian")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def main() -> None:
    rows, fields = toy(), real_fields()
    parts = [
        "Frobenius norm of the Jacobian from a noisy coefficient to the predicted solution, median of "
        f"{STATES} states; optimal denoisers of finite sets, in closed form.",
        table(rows, LEVELS),
        "The same, of the mean Jacobian over the states:",
        table(toy(average), LEVELS),
        "How many of poisson's fields (32 x 32 nodes) share in the optimal denoiser's prediction, 1 / sum w^2, the median of "
        "64 states:",
        table(fields, FIELD_LEVELS),
    ]
    write_text(RESULT, "\n\n".join(parts) + "\n")
    with atomic_path(PICTURE) as path:
        path.write_bytes(small_png(plot(rows)))
    print(RESULT.read_text())


if __name__ == "__main__":
    main()

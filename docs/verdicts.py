"""Puts the paper's claims, with what the published studies found, at the top of docs/paper/README.md: `python docs/verdicts.py`.

Reads claims.csv of the studies' folders, and gradients.csv of the one of guidance; so run it after `docs/reproduce.py`.

Each study has one problem. Test fields are not independent of one another (poisson and helmholtz have the same coefficients), so
the mean over problems has the mean of their half-widths, as if all errors went together: its interval is rather too wide.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refresh import fill

from ddis.evaluation import attenuation
from ddis.evaluation.text import read_table
from ddis.evaluation.verdicts import verdict
from ddis.text import pipe_table

PAGES = Path(__file__).parent / "paper"
PROBLEMS = ("poisson", "helmholtz", "navier-stokes")
NAMES = {"claim": str, "formula": str, "verdict": str}
HEAD = ["claim", "published", *PROBLEMS, "mean", "holds here"]
MEANS = {
    "l2 error of `ddis` below the joint model's, %": ("l2 of ddis", "100 %", 11.0),
    "spectral error of `ddis` below the joint model's, %": ("E_s of ddis", "100 %", 54.0),
    "with 1 % of the pairs: l2 error below, %": ("l2 of ddis", "1 %", 40.0),
}

Interval = tuple[float, float, float]


def found(folder: str, beginning: str, *holding: str) -> tuple[Interval, str]:
    """Figure with interval, and verdict, of the claim of a study that begins with a text and has others in it."""
    rows = read_table(PAGES / folder / "claims.csv", NAMES)
    (row,) = (row for row in rows if row["claim"].startswith(beginning) and all(part in row["claim"] for part in holding))
    return interval(row), row["verdict"]


def interval(row: Mapping[str, Any]) -> Interval:
    return row["ours"], row["low"], row["high"]


def mean(figures: Sequence[Interval]) -> Interval:
    """Of figures whose errors may go together: value and ends."""
    value, low, high = (sum(parts) / len(figures) for parts in zip(*figures, strict=True))
    return value, low, high


def shown(figure: Interval) -> str:
    return "{:.3g} [{:.3g}, {:.3g}]".format(*figure)


def table() -> str:
    """The claims, one row each."""
    rows = []
    for name, (what, percent, bound) in MEANS.items():
        begins, share = f"sparse: {what} ", f"at {percent} of the pairs, "
        each = [found(f"{problem}-64", begins, share + problem)[0] for problem in PROBLEMS]
        rows.append([name, f"{bound:g}", *map(shown, each), shown(mean(each)), verdict(mean(each), at_least=bound)])
    rough = [found(f"{problem}-64", f"{problem}, sparse: samples of ddis are not too smooth") for problem in PROBLEMS]
    verdicts = {said for _, said in rough}
    said = verdicts.pop() if len(verdicts) == 1 else ", ".join(said for _, said in rough)
    rows.append(
        ["power of its samples at short waves over the truth's, at least 0.9", "", *(shown(f) for f, _ in rough), "", said]
    )
    figure, said = found("experiments-32", "poisson, sparse: the equation in the operator's loss helps ddis at 1 %")
    rows.append(
        ["l2 error of `ddis` at 1 %, less with the equation in the operator's loss, %", "11.4", shown(figure), "", "", "", said]
    )
    for row in attenuation.claim_rows(read_table(PAGES / "attenuation-32" / "gradients.csv", attenuation.TYPES)):
        rows.append([row["claim"], "", shown(interval(row)), "", "", "", row["verdict"]])
    return pipe_table(HEAD, rows)


if __name__ == "__main__":
    fill(PAGES / "README.md", {"verdicts": table()})

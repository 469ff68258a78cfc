"""The sections of the page, as data: what each shows, which runs of a study it takes, and how they are laid out.

Which sections a study has follows from its configuration alone. Imports nothing heavy: the workflow asks what files there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ddis.evaluation.published import PUBLISHED_BUDGET, PUBLISHED_RATES

Operator = Literal["own", "solver", "physics", "other"]
Axis = Literal["problem", "percent", "values", "noise", "budget"]


@dataclass(frozen=True)
class Entry:
    """A case of a study, with what sections choose by.

    operator  own: the study's, or none; physics: trained with the equation in its loss
    differs   settings in which the run is not the first one of its method, its weight and what it is made on aside
    budget    steps, in 1/128 of those of the first run of its method, to the nearest power of two
    values    observed values of a field, noise: in std(u); None: of a sum of kinds
    base      whether the observation is the study's first; same_noise, same_values: whether it has that of the first
    most, few whether the percent is the study's largest, or smallest; both for runs without pairs
    settings  of the run that are not at their defaults
    """

    problem: str
    pde: str
    observation: str
    run: str
    percent: str
    method: str
    operator: Operator
    differs: frozenset[str]
    budget: float
    values: int | None
    noise: float | None
    base: bool
    same_noise: bool
    same_values: bool
    most: bool
    few: bool
    settings: tuple[tuple[str, str], ...]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """As in the tables: problem, observation, run, percent."""
        return self.problem, self.observation, self.run, self.percent


@dataclass(frozen=True)
class Runs:
    """Cases that a section takes; None: any. differs: exactly these settings, or a part of them."""

    methods: tuple[str, ...] | None = None
    differs: frozenset[str] | None = frozenset()
    operator: Operator | None = "own"
    percents: Literal["most", "few", "all"] = "most"
    observations: Literal["base", "values", "noise"] = "base"
    pde: str | None = None

    def has(self, entry: Entry) -> bool:
        seen = {
            "base": entry.base,
            "values": entry.same_noise and entry.values is not None,
            "noise": entry.same_values and entry.noise is not None,
        }
        return (
            (self.methods is None or entry.method in self.methods)
            and (self.differs is None or entry.differs == self.differs)
            and self.operator in (None, entry.operator)
            and (self.percents == "all" or getattr(entry, self.percents))
            and seen[self.observations]
            and self.pde in (None, entry.pde)
        )


@dataclass(frozen=True)
class Section:
    """A table of the paper with its figures.

    runs      what it takes, each of which gives something or there is no such section; optional: what it takes beside that
    needs     in words, for a study without it
    across    what the columns are, of which there are at least `columns`; None: the measures alone
    measures  columns of the table of errors
    pictures  spectra, gallery: per problem, from the sample files; beside the figure of the table itself
    note      published figures that belong to no row
    """

    name: str
    title: str
    shows: str
    needs: str
    runs: tuple[Runs, ...]
    optional: tuple[Runs, ...] = ()
    across: Axis | None = None
    columns: int = 1
    measures: tuple[str, ...] = ("l2_sample", "l2_mean", "spectral", "coverage90", "seconds_per_sample")
    pictures: tuple[Literal["spectra", "gallery"], ...] = ()
    note: str = ""

    def entries(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those that it takes, in the order of the configuration, of problems that have all the runs that it needs."""
        wanted = self.runs + self.optional
        found = [entry for entry in entries if any(runs.has(entry) for runs in wanted)]
        if self.across not in (None, "problem") and self.columns > 1:
            found = [entry for entry in found if self._moves(entry, found)]
        whole = [p for p in self.problems(found) if all(any(r.has(e) for e in found if e.problem == p) for r in self.runs)]
        found = [entry for entry in found if entry.problem in whole]
        return found if len(self.places(found)) >= self.columns else []

    def _moves(self, entry: Entry, entries: Sequence[Entry]) -> bool:
        """Whether a run is at several places of the axis, or needs none of what changes along it."""
        same = [other for other in entries if (self.label(other), other.problem) == (self.label(entry), entry.problem)]
        return len(self.places(same)) > 1 or (self.across == "percent" and entry.most and entry.few)

    def label(self, entry: Entry) -> str:
        """The method, of its first run; other experiments have their own name."""
        own = entry.differs - {"steps"} if self.across == "budget" else entry.differs
        return entry.run if own or entry.operator != "own" else entry.method

    def places(self, entries: Sequence[Entry]) -> list[str | float]:
        """Where the entries stand along the axis, in order; numbers from small to large."""
        found = list(dict.fromkeys(self.place(entry) for entry in entries))
        return found if self.across in (None, "problem") else sorted(found)

    def place(self, entry: Entry) -> str | float:
        if self.across is None:
            return ""
        value = getattr(entry, self.across)
        return value if self.across == "problem" else float(value)

    def problems(self, entries: Sequence[Entry]) -> list[str]:
        return list(dict.fromkeys(entry.problem for entry in entries))

    def files(self, entries: Sequence[Entry]) -> list[str]:
        """Names of its files, for entries that are not empty."""
        pictures = [f"{kind}-{problem}" for kind in self.pictures for problem in self.problems(entries)]
        return [f"{self.name}.csv", f"{self.name}.tex", f"{self.name}.png", *(f"{self.name}-{p}.png" for p in pictures)]


SECTIONS = (
    Section(
        "main",
        "Main table",
        "Relative l2 error and spectral error of single samples, and the share of wrong nodes of two-valued coefficients, at the "
        "largest share of the pairs.",
        "the method `ddis`",
        runs=(Runs(methods=("ddis",)),),
        optional=(Runs(), Runs(operator="solver", methods=("ddis-gn",))),
        across="problem",
        measures=("l2_sample", "spectral", "error_rate"),
        pictures=("gallery",),
        note=f"{PUBLISHED_BUDGET} {PUBLISHED_RATES}",
    ),
    Section(
        "efficiency",
        "Data efficiency",
        "Error of single samples against the share of the pairs in percent.",
        "the method `ddis` at two or more `fractions`",
        runs=(Runs(methods=("ddis",), percents="few"),),
        optional=(Runs(percents="all"),),
        across="percent",
        columns=2,
        measures=("l2_sample",),
    ),
    Section(
        "physics",
        "The equation in the operator's loss",
        "Runs at the smallest share of the pairs, with operators whose loss has the equation in it, and without.",
        "a run at the smallest of the `fractions` whose operator is one of `operators` with `physics`",
        runs=(Runs(operator="physics", differs=None, percents="few"),),
        optional=(Runs(methods=("ddis", "ddis-gn", "tikhonov", "exact"), percents="few"),),
    ),
    Section(
        "samplers",
        "DAPS against DPS, Langevin against Gauss-Newton",
        "The same prior and operator in three samplers: `ddis` is DAPS with Langevin steps, `ddis-dps` is DPS, `ddis-gn` is DAPS "
        "with Gauss-Newton steps. Samples that are too smooth have too little power at high wavenumbers.",
        "the methods `ddis`, `ddis-dps` and `ddis-gn` with all pairs",
        runs=(Runs(methods=("ddis",)), Runs(methods=("ddis-dps",)), Runs(methods=("ddis-gn",))),
        optional=(Runs(methods=("exact",)),),
        pictures=("spectra", "gallery"),
    ),
    Section(
        "joint-daps",
        "DAPS on the joint prior",
        "The sampler of `ddis` on the prior of pairs, beside the joint model's own sampler and `ddis`.",
        "the methods `joint-daps`, `fundps` and `ddis` with all pairs",
        runs=(Runs(methods=("joint-daps",)), Runs(methods=("fundps",)), Runs(methods=("ddis",))),
        pictures=("spectra", "gallery"),
    ),
    Section(
        "budgets",
        "Time budgets",
        "Error of single samples by their time: 128 units are the steps of the method's first run, others to the nearest power "
        "of two. The figure has the seconds that were measured.",
        "runs of `ddis` or `fundps` that differ from the first one in `steps` alone",
        runs=(Runs(methods=("ddis", "fundps"), differs=frozenset({"steps"})),),
        optional=(Runs(methods=("ddis", "fundps")),),
        across="budget",
        columns=2,
        measures=("l2_sample", "spectral"),
    ),
    Section(
        "resolution",
        "A coarser grid first",
        "`ddis` with its first levels on a coarser grid, and without.",
        "a run of `ddis` with `start_resolution` and `upsample_at`",
        runs=(Runs(methods=("ddis",), differs=frozenset({"start_resolution", "upsample_at"})), Runs(methods=("ddis",))),
    ),
    Section(
        "sparsity",
        "Fewer observations",
        "Error of single samples against the number of observed values of a field, with all pairs.",
        "two or more `observations` that differ in `count` alone",
        runs=(Runs(observations="values"),),
        across="values",
        columns=2,
        measures=("l2_sample",),
    ),
    Section(
        "noise",
        "Noise",
        "Error of single samples against the noise of the observations in std(u), with all pairs.",
        "two or more `observations` that differ in `noise` alone",
        runs=(Runs(observations="noise"),),
        across="noise",
        columns=2,
        measures=("l2_sample",),
    ),
    Section(
        "turbulence",
        "Turbulence",
        "Navier-Stokes at other viscosities and times.",
        "two or more `problems` of the equation navier-stokes",
        runs=(Runs(pde="navier-stokes"),),
        across="problem",
        columns=2,
        measures=("l2_sample", "spectral"),
    ),
    Section(
        "operator",
        "The operator's error against guidance",
        "Guidance by the trained operator, by the solver in its place, and without the model of the operator's error.",
        "the methods `ddis` or `ddis-gn`, with `operator: solver` too",
        runs=(Runs(methods=("ddis", "ddis-gn"), operator="solver"), Runs(methods=("ddis", "ddis-gn"), percents="all")),
        optional=(
            Runs(methods=("ddis", "ddis-gn"), differs=frozenset({"error_model"}), percents="all"),
            Runs(methods=("exact",)),
        ),
        across="percent",
        measures=("l2_sample", "spectral"),
    ),
    Section(
        "baselines",
        "Other baselines",
        "A classical ensemble method without gradients, and samplers on a flow of pairs.",
        "a run of the method `es-mda`, `eci` or `ofm`",
        runs=(Runs(methods=("es-mda", "eci", "ofm")),),
        optional=(Runs(methods=("ddis", "ddis-gn", "fundps", "exact")),),
        pictures=("gallery",),
    ),
)

"""The page: a section for each table and figure of the paper."""

from collections.abc import Mapping, Sequence

from ddis.evaluation import attenuation, claims
from ddis.evaluation.paper import tables
from ddis.evaluation.paper.sections import Entry, Section
from ddis.evaluation.readable import failures, sizes
from ddis.evaluation.text import Table, known

INTRODUCTION = """Errors are relative l2 errors of the coefficient in percent, ± standard error over the test fields; E_s is the
spectral error of samples, K their number for a field. In brackets: published figures (arXiv 2601.23280), which are for 128 x 128
nodes, 500 noiseless observations, 50,000 pairs and far larger networks: compare how methods differ, not the numbers. Settings
that are not named are at their defaults, docs/configuration.md."""

PICTURES = {
    "spectra": "Ring-averaged power of samples and truth, and their ratio.",
    "gallery": "Truth, observation, one sample of each run, and its error.",
}


def caption(section: Section, entries: Sequence[Entry], table: Table) -> str:
    """What a table shows, and its setting."""
    keys = {entry.key for entry in entries}
    own = [row for key, row in tables.rows_of(table).items() if key in keys]
    pairs = sorted(known(own, "pairs"), key=lambda row: float(row["percent"]))
    shares = dict.fromkeys(f"{row['pairs']:,} pairs at {row['percent']:g} %" for row in pairs)
    parts = [section.shows, *sizes(own), ", ".join(shares) + "." if shares else "", *failures(own), section.note]
    return " ".join(part for part in parts if part)


def page(
    study: str,
    sections: Sequence[tuple[Section, Sequence[Entry]]],
    table: Table,
    claimed: Table,
    guided: Mapping[str, Table],
) -> str:
    """Markdown of all sections; of those without runs a line that says what they need.

    claimed: the table of claims; guided: the gradients of guidance, by problem.
    """
    parts = [f"# The paper's tables and figures, study `{study}`", INTRODUCTION]
    rows = tables.rows_of(table)
    for section, entries in sections:
        parts.append(f"## {section.title}")
        if entries:
            parts += _section(section, entries, table, rows)
        else:
            parts.append(f"Not in this study: it takes {section.needs}.")
    parts.append(f"## {attenuation.TITLE}")
    parts += [f"{attenuation.page(rows)}\n\n![norms](attenuation-{problem}.png)" for problem, rows in guided.items()]
    parts += [] if guided else [f"Not in this study: it takes {attenuation.NEEDS}."]
    return "\n\n".join([*parts, "## Claims", claims.to_markdown(claimed).strip(), ""])


def _section(section: Section, entries: Sequence[Entry], table: Table, rows: tables.Rows) -> list[str]:
    links = f"[CSV]({section.name}.csv), [LaTeX]({section.name}.tex)."
    parts = [caption(section, entries, table), tables.to_markdown(section, entries, rows), links]
    parts.append(f"![{section.title}]({section.name}.png)")
    for problem in section.problems(entries):
        for kind in section.pictures:
            parts.append(f"{PICTURES[kind]}\n\n![{kind} of {problem}]({section.name}-{kind}-{problem}.png)")
    return parts


def texts(sections: Sequence[tuple[Section, Sequence[Entry]]], table: Table) -> Mapping[str, str]:
    """CSV and LaTeX of every table, by file name."""
    rows, found = tables.rows_of(table), dict[str, str]()
    for section, entries in sections:
        if entries:
            found[f"{section.name}.csv"] = tables.to_csv(entries, rows)
            found[f"{section.name}.tex"] = tables.to_latex(section, entries, rows, caption(section, entries, table))
    return found

"""The page: a section for each table and figure of the paper."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ddis.evaluation import attenuation, claims
from ddis.evaluation.paper import tables
from ddis.evaluation.paper.sections import Entry, Section
from ddis.evaluation.readable import sizes

INTRODUCTION = """Errors are relative l2 errors of the coefficient in percent, ± standard error over the test fields; E_s is the
spectral error of samples, K their number for a field. In brackets: published figures (arXiv 2601.23280), which are for 128 x 128
nodes, 500 noiseless observations, 50,000 pairs and far larger networks: compare how methods differ, not the numbers. Settings
that are not named are at their defaults, docs/configuration.md."""

PICTURES = {
    "spectra": "Ring-averaged power of samples and truth, and their ratio.",
    "gallery": "Truth, observation, one sample of each run, and its error.",
}


def caption(section: Section, entries: Sequence[Entry], table: pd.DataFrame) -> str:
    """What a table shows, and its setting."""
    keys = {entry.key for entry in entries}
    own = table[[key in keys for key in tables.rows_of(table)]]
    pairs = own.dropna(subset=["pairs"]).sort_values("percent")
    shares = dict.fromkeys(f"{count:,} pairs at {percent:g} %" for count, percent in zip(pairs.pairs, pairs.percent, strict=True))
    parts = [section.shows, *sizes(own), ", ".join(shares) + "." if shares else "", section.note]
    return " ".join(part for part in parts if part)


def page(
    study: str,
    sections: Sequence[tuple[Section, Sequence[Entry]]],
    table: pd.DataFrame,
    claimed: pd.DataFrame,
    guided: Mapping[str, pd.DataFrame],
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
    known = claimed[claimed["ours"].notna()].astype(object)
    found = [{str(key): value for key, value in row.items()} for row in known.where(known.notna(), None).to_dict("records")]
    return "\n\n".join([*parts, "## Claims", claims.to_markdown(found).strip(), ""])


def _section(section: Section, entries: Sequence[Entry], table: pd.DataFrame, rows: tables.Rows) -> list[str]:
    links = f"[CSV]({section.name}.csv), [LaTeX]({section.name}.tex)."
    parts = [caption(section, entries, table), tables.to_markdown(section, entries, rows), links]
    parts.append(f"![{section.title}]({section.name}.png)")
    for problem in section.problems(entries):
        for kind in section.pictures:
            parts.append(f"{PICTURES[kind]}\n\n![{kind} of {problem}]({section.name}-{kind}-{problem}.png)")
    return parts


def texts(sections: Sequence[tuple[Section, Sequence[Entry]]], table: pd.DataFrame) -> Mapping[str, str]:
    """CSV and LaTeX of every table, by file name."""
    rows, found = tables.rows_of(table), dict[str, str]()
    for section, entries in sections:
        if entries:
            found[f"{section.name}.csv"] = tables.to_csv(entries, rows)
            found[f"{section.name}.tex"] = tables.to_latex(section, entries, rows, caption(section, entries, table))
    return found

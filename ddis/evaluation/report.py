"""The report of a study: one HTML page that holds everything it shows and needs neither network nor scripts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from ddis.data.subsets import percent_name
from ddis.evaluation.readable import to_html
from ddis.evaluation.text import Table, grouped, known
from ddis.evaluation.verdicts import not_asked
from ddis.yaml_text import yaml_text


@dataclass(frozen=True)
class Picture:
    """A figure of the report: a short title, the bytes of its PNG, and the caption that says how to read it."""

    title: str
    png: bytes
    caption: str

    @property
    def data(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Model:
    """A trained model of the report: what is known of it (parameters, steps, seconds ...), and its own tables by title."""

    name: str
    facts: Mapping[str, Any]
    tables: Mapping[str, Table]


def render_report(
    *,
    study: str,
    config: Mapping[str, Any],
    table: Table,
    caption: str,
    lead: Sequence[Picture],
    claims: Table,
    claims_text: str,
    comparisons: Mapping[str, str],
    results: Sequence[Picture],
    cards: Mapping[str, str],
    data: Sequence[Picture],
    models: Sequence[Model],
    training: Sequence[Picture],
    provenance: Mapping[str, Any],
) -> str:
    """The page as text.

    study: its name. config: the resolved configuration. table, caption: the table of errors and `readable.caption` of it.
    lead: the figures that the page opens with. claims, claims_text: table of `claims.claim_rows`, and its Markdown. comparisons:
    title -> further tables, in Markdown. results, data, training: figures of the sections on results, data sets and models.
    cards: problem -> dataset card in Markdown. models: one entry per trained model. provenance: versions, commit, device,
    command ...; a mapping among its values becomes a table of its own.
    """
    environment = Environment(
        loader=PackageLoader("ddis.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        study=study,
        config=config,
        config_text=yaml_text(_plain(config), width=100),
        setting=_setting(table),
        table=Markup(to_html(table)),
        caption=caption,
        best=best_sentences(table),
        lead=lead,
        verdicts=verdict_sentences(claims),
        claims=Markup(_markdown(claims_text)),
        comparisons={title: Markup(_markdown(text)) for title, text in comparisons.items()},
        has={name: bool(known(table, name)) for name in ("l2_limit", "coverage90")},
        results=results,
        cards={problem: Markup(_markdown(card)) for problem, card in cards.items()},
        data=data,
        models=models,
        training=training,
        provenance={key: value for key, value in provenance.items() if not isinstance(value, Mapping)},
        provenance_tables={key: value for key, value in provenance.items() if isinstance(value, Mapping)},
    )


def best_sentences(table: Table) -> list[str]:
    """Per problem, observation and percent: the method with the smallest error of a sample, and what exact samples reach."""
    sentences = []
    for (problem, observation), group in grouped(known(table, "l2_sample"), "problem", "observation").items():
        learnt = [r for r in group if r["operator"] not in ("solver", "corrected") and r["method"] not in ("exact", "prior-mean")]
        parts = []
        for (percent,), rows in sorted(grouped(learnt, "percent").items()):
            best = min(rows, key=lambda row: float(row["l2_sample"]))
            parts.append(f"with {percent_name(percent)} % of the pairs {best['run']} is nearest to the truth ({_error(best)})")
        if exact := [row for row in group if row["method"] == "exact"]:
            parts.append(f"samples of the exact posterior, which no method can beat, are at {_error(exact[0])}")
        if parts:
            sentences.append(f"{problem}, {observation}: {'; '.join(parts)}.")
    return sentences


def _error(row: Mapping[str, Any]) -> str:
    error = "" if row["l2_sample_se"] is None else f" ± {row['l2_sample_se']:.1f}"
    return f"{row['l2_sample']:.1f}{error} %"


def verdict_sentences(claims: Table) -> list[tuple[str, str]]:
    """Verdict and sentence of every claim that the study has a figure for: what holds, what does not, what is open."""
    found = known(claims, "ours")
    words = {"yes": "Holds", "no": "Does not hold", "inconclusive": "Undecided"}
    sentences = []
    for verdict, word in words.items():
        for row in (row for row in found if row["verdict"] == verdict):
            interval = "" if row["low"] is None else f", between {row['low']:.3g} and {row['high']:.3g}"
            sentences.append((word, f"{row['claim']} (found {row['ours']:.3g}{interval})."))
    return [*sentences, *(("Open", sentence) for sentence in not_asked(claims))]


def _setting(table: Table) -> list[dict[str, Any]]:
    """What was compared, one entry per problem and observation."""
    return [
        {
            "problem": problem,
            "observation": observation,
            "nodes": rows[0]["resolution"],
            "observations": rows[0]["observations"],
            "runs": ", ".join(dict.fromkeys(row["run"] for row in rows)),
            "percents": ", ".join(f"{percent:g}" for percent in sorted({row["percent"] for row in rows})),
            "fields": max(row["n_fields"] for row in rows),
        }
        for (problem, observation), rows in grouped(table, "problem", "observation").items()
    ]


def _markdown(text: str) -> str:
    """Markdown as HTML; raw HTML is escaped, and pictures are left out because they would need the network."""
    return str(MarkdownIt("commonmark", {"html": False}).enable("table").disable("image").render(text))


def _plain(value: Any) -> Any:
    """Only what YAML has: mappings, lists and scalars."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)

"""Stage `paper`: the paper's tables and figures as one page, from the tables and sample files of a study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddis.config import Case, Study
from ddis.errors import DamagedError
from ddis.evaluation import attenuation, claims
from ddis.evaluation.figures import errors, fields
from ddis.evaluation.figures.style import run_colours, small_png
from ddis.evaluation.paper import page
from ddis.evaluation.paper.figures import chart
from ddis.evaluation.paper.sections import Entry, Section
from ddis.evaluation.paper.tables import rows_of
from ddis.evaluation.table import from_csv
from ddis.evaluation.text import read_table
from ddis.files import write_together
from ddis.reading import REPAIR
from ddis.stages.common import stage
from ddis.stages.experiments import PAGE, sections
from ddis.stages.layout import guidance_path
from ddis.stages.tables import read_case

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddis.evaluation.text import Table


def run(study: Study) -> None:
    """Writes paper/ (see `experiments.paper_files`)."""
    with stage(study, "paper") as (tracker, _):
        paths = {study.folder / "paper" / name: content for name, content in files(study, study.folder / "tables").items()}
        write_together(paths)
        for path in paths:
            tracker.artifact(path)


def files(study: Study, tables: Path) -> dict[str, str | bytes]:
    """The page and its files, by name; `tables` is the folder of the study's tables."""
    path, shown = tables / "errors.csv", sections(study)
    table = from_csv(path)
    wanted = {entry.key for _, entries in shown for entry in entries}
    if lacking := sorted(wanted - rows_of(table).keys()):
        raise DamagedError(f"{path} lacks {'/'.join(lacking[0])}; {REPAIR}")
    guided = {problem: read_table(guidance_path(study, problem), attenuation.TYPES) for problem in study.guided()}
    made: dict[str, str | bytes] = {f"{name}.png": small_png(figure) for name, figure in draw(study, shown, table)}
    made |= {f"attenuation-{problem}.png": small_png(attenuation.chart(rows)) for problem, rows in guided.items()}
    made[PAGE] = page.page(study.study, shown, table, read_table(tables / "claims.csv", claims.TYPES), guided)
    made.update(page.texts(shown, table))
    return made


def draw(study: Study, shown: Sequence[tuple[Section, list[Entry]]], table: Table) -> Iterator[tuple[str, Figure]]:
    """Name and figure of every picture."""
    rows, colours = rows_of(table), run_colours(list(study.runs))
    for section, entries in shown:
        if entries:
            yield section.name, chart(section, entries, rows)
        for problem in section.problems(entries) if section.pictures else ():
            samples = [read_case(study, Case(*entry.key)) for entry in entries if entry.problem == problem]
            if "spectra" in section.pictures:
                yield f"{section.name}-spectra-{problem}", errors.spectra(samples, colours)
            if "gallery" in section.pictures:
                yield f"{section.name}-gallery-{problem}", fields.gallery(samples, fields=[0], show="sample")

"""Stage `study`: the resolved configuration."""

from ddis import provenance
from ddis.config import Study
from ddis.files import write_text
from ddis.stages.records import check_folders, write_record
from ddis.steps import Step
from ddis.yaml_text import yaml_text


def run(study: Study) -> None:
    """Writes results/<study>/config.yaml."""
    step, path = Step("study"), study.folder / "config.yaml"
    check_folders(study, step)
    write_text(path, yaml_text(study.resolved()))
    write_record(study, step, provenance.collect({}, study.seed), {})

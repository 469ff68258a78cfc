"""Stage `study`: the resolved configuration, and the study's parent run in tracking."""

import yaml

from ddis import tracking
from ddis.config import Study
from ddis.files import write_text


def run(study: Study) -> None:
    """Writes results/<study>/config.yaml."""
    path = study.folder / "config.yaml"
    write_text(path, yaml.safe_dump(study.resolved(), sort_keys=False, allow_unicode=True))
    tracking.ensure_study(study.study, path)

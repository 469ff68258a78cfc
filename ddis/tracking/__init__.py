"""Tracking: every stage writes a record, and one exporter feeds MLflow from the records.

The files of a study are the truth and MLflow only watches. A stage appends what it has to say to its record (`record`), and knows
nothing of MLflow: no import, no server, no network. `ddis runs sync` (`sync`) sends what MLflow lacks; Snakemake has it at work
beside itself (`beside`), unless DDIS_TRACKING=off. Without MLFLOW_TRACKING_URI, MLflow is the database ./mlflow.db, which a plain
`mlflow ui` shows.
"""

from ddis.tracking.record import Shapes, StageRun, read_record, record_path, stage_run

__all__ = ["Shapes", "StageRun", "read_record", "record_path", "stage_run"]

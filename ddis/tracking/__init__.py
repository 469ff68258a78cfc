"""Tracking: every stage is an MLflow run under its study's parent run, and a local record that needs no server.

The files of a study are the truth and MLflow only watches. Each event of a stage goes first to the local record (`record`), then
to MLflow. When MLflow fails or gives no answer, one warning is logged, the stage goes on without it, and the record stays whole:
`ddis runs sync` sends it later, `ddis runs clean` closes the runs of processes that were killed outright.

`DDIS_TRACKING=off` keeps the local record only. Without MLFLOW_TRACKING_URI runs go to `./mlflow.db`, where a plain
`mlflow ui` shows them.
"""

from ddis.tracking.record import flatten, read_record, record_path
from ddis.tracking.run import StageRun, ensure_study, stage_run
from ddis.tracking.signals import Terminated, install_sigterm_handler

__all__ = [
    "StageRun",
    "Terminated",
    "ensure_study",
    "flatten",
    "install_sigterm_handler",
    "read_record",
    "record_path",
    "stage_run",
]

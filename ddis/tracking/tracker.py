"""What is said to MLflow. Everything here may raise what MLflow raises, and everything may be said twice.

To say it twice changes nothing: a run is found again by its tag `ddis.run`, MLflow's database holds a metric of the same run,
name, time, step and value once, and parameters, tags and artifacts are set by name.
"""

import fcntl
import getpass
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddis.errors import InputError
from ddis.provenance import file_digest
from ddis.tracking.record import Attempt, Line, flatten

if TYPE_CHECKING:
    from mlflow.entities import Run

_log = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACT_LIMIT_BYTES = 64 * 2**20
# What MLflow accepts in one request, and the longest names and values.
_METRICS_PER_BATCH, _PARAMETERS_PER_BATCH = 1000, 100
_NAME_LENGTH, _PARAMETER_LENGTH, _TAG_LENGTH = 250, 6000, 8000
# A dead server must cost seconds; left to itself MLflow tries for minutes, prints addresses, and reports its use to its makers.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# Tags that a run has from its first moment; the others follow, and tell it from a twin that nobody uses.
_IDENTITY = ("ddis.kind", "ddis.study", "ddis.stage", "ddis.key", "ddis.run", "mlflow.user", "mlflow.source.name")


def tracking_uri() -> str:
    """The address of the tracker: MLFLOW_TRACKING_URI, else the database in this folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def import_mlflow() -> None:
    """Import MLflow, with patience and noise as we want them."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    # What goes wrong is said once, by us.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


class Tracker:
    """The MLflow server or database at an address. Making one connects; the first connection to a database makes its tables."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.shown_uri = without_password(uri)
        with _locked():
            if uri.startswith("sqlite:///"):
                path = Path(uri.removeprefix("sqlite:///")).absolute()
                _check_sqlite(path)
                # MLflow keeps connections by name, even where the working directory has changed.
                uri = f"sqlite:///{path}"
            self.client = MlflowClient(tracking_uri=uri)

    @classmethod
    def reach(cls) -> "Tracker":
        """The tracker of this folder, for a command that is about nothing else. Raises InputError if it does not answer."""
        import_mlflow()
        with answering():
            tracker = cls(tracking_uri())
        tracker.check()
        return tracker

    def check(self) -> None:
        """Raises InputError if it does not answer."""
        with answering():
            self.client.search_experiments(max_results=1)

    def open_study(self, study: str, config_path: Path) -> None:
        """Creates experiment and parent run of a study where they are missing; attaches the configuration if it is there."""
        with _locked():
            parent = self._study(study)[1]
        if config_path.is_file():
            self.client.set_tag(parent, "ddis.config_sha256", file_digest(config_path))
            self.client.log_artifact(parent, str(config_path))

    def open_run(self, attempts: Sequence[Attempt]) -> "Run":
        """The run of these attempts, created where it is missing, with its parameters."""
        start = attempts[0].start
        with _locked():
            experiment, parent = self._study(start["study"])
            run = self._find(experiment, start["tags"]["ddis.run"])
            if run is None:
                tags = {key: start["tags"][key] for key in _IDENTITY} | {"mlflow.parentRunId": parent}
                self.client.create_run(experiment, start_time=start["time"], tags=_whole(tags), run_name=start["stage"])
                run = self._find(experiment, start["tags"]["ddis.run"])
                assert run is not None
        self._set_parameters(run.info.run_id, flatten(start["parameters"]))
        return run

    def send(self, run_id: str, lines: Sequence[Line]) -> None:
        """The metrics and artifacts of these lines."""
        from mlflow.entities import Metric

        metrics = [
            Metric(_name(name), float(value), line["time"], line["step"])
            for line in lines
            if line["kind"] == "metrics"
            for name, value in line["values"].items()
        ]
        for part in _chunks(metrics, _METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=part)
        for line in lines:
            if line["kind"] == "artifact":
                self._send_artifact(run_id, line)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Sets tags of a run."""
        from mlflow.entities import RunTag

        for part in _chunks([RunTag(*tag) for tag in _whole(tags).items()], _PARAMETERS_PER_BATCH):
            self.client.log_batch(run_id, tags=part)

    def go_on(self, run: "Run") -> None:
        """Marks a run that ended early as one at work again."""
        self.client.update_run(run.info.run_id, status="RUNNING")
        self.forget_error(run)

    def forget_error(self, run: "Run") -> None:
        """Takes away what an earlier attempt ended with."""
        if "ddis.error" in run.data.tags:
            self.client.delete_tag(run.info.run_id, "ddis.error")

    def finish(self, run_id: str, status: str, time: int, attempt: int) -> None:
        """Ends a run at `time` (ms since 1970), unless it has finished or a later attempt than this number is at work on it."""
        run = self.client.get_run(run_id)
        later = int(run.data.tags.get("ddis.attempt", 0)) > attempt
        if status == "FINISHED" or not (later or run.info.status == "FINISHED"):
            self.client.set_terminated(run_id, status, time)

    def studies(self) -> dict[str, str]:
        """Names of all studies, each with its experiment."""
        found = self.client.search_experiments(filter_string="tags.`ddis.study` LIKE '%'", max_results=50_000)
        return {experiment.name: experiment.experiment_id for experiment in found}

    def running(self, experiments: list[str]) -> list["Run"]:
        """The stages that are marked as being at work."""
        condition = "tags.`ddis.kind` = 'stage' and attributes.status = 'RUNNING'"
        return self._search(experiments, condition) if experiments else []

    def _search(self, experiments: list[str], condition: str) -> list["Run"]:
        found: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(experiments, condition, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _study(self, study: str) -> tuple[str, str]:
        """Experiment and parent run."""
        experiment = self._experiment(study)
        found = self.client.search_runs(
            [experiment], "tags.`ddis.kind` = 'study'", order_by=["attributes.start_time ASC"], max_results=1
        )
        if found:
            return experiment, found[0].info.run_id
        tags = {
            "ddis.kind": "study",
            "ddis.study": study,
            "mlflow.user": user(),
            "mlflow.source.name": "ddis",
            "mlflow.note.content": f"Study {study}. Its stages are the runs below this one.",
        }
        run_id = self.client.create_run(experiment, tags=tags, run_name=study).info.run_id
        # It only holds its stages together; nothing would end it after a kill.
        self.client.set_terminated(run_id)
        return experiment, run_id

    def _experiment(self, study: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(study)
        if experiment is None:
            try:
                return self.client.create_experiment(study, tags={"ddis.study": study})
            except MlflowException:
                # Another machine may have been faster.
                experiment = self.client.get_experiment_by_name(study)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _find(self, experiment: str, key: str) -> "Run | None":
        """The run with tag `ddis.run`. MLflow repeats a request whose answer is lost: what it created twice is deleted once."""
        runs = sorted(
            self._search([experiment], f"tags.`ddis.run` = '{key}'"),
            key=lambda run: ("ddis.attempt" not in run.data.tags, run.info.run_id),
        )
        for twin in runs[1:]:
            if "ddis.attempt" not in twin.data.tags:
                self.client.delete_run(twin.info.run_id)
        return runs[0] if runs else None

    def _set_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        whole = {_name(key): cut(value, _PARAMETER_LENGTH) for key, value in parameters.items()}
        for part in _chunks([Param(*parameter) for parameter in whole.items()], _PARAMETERS_PER_BATCH):
            self.client.log_batch(run_id, params=part)

    def _send_artifact(self, run_id: str, line: Line) -> None:
        """Attaches a file; of one that is too large, or no longer what it was, only a tag tells its path and SHA-256."""
        path = Path(line["path"])
        if line["bytes"] <= ARTIFACT_LIMIT_BYTES and path.is_file() and file_digest(path) == line["sha256"]:
            self.client.log_artifact(run_id, str(path), line["folder"])
        else:
            if line["bytes"] <= ARTIFACT_LIMIT_BYTES:
                _log.warning("%s is no longer the file that the record names; MLflow gets its path and SHA-256", path)
            value = cut(f"{path} sha256:{line['sha256']}", _TAG_LENGTH)
            self.client.set_tag(run_id, _name(f"artifact.{path.name}"), value)


@contextmanager
def answering() -> Iterator[None]:
    """Makes an InputError of whatever goes wrong with MLflow."""
    try:
        yield
    except Exception as reason:
        raise InputError(
            f"MLflow at {without_password(tracking_uri())} cannot be used: {shown(reason)}; "
            "start it, or set MLFLOW_TRACKING_URI to the address of another"
        ) from reason


@contextmanager
def _locked() -> Iterator[None]:
    """One process of this folder at a time: MLflow's first set-up of a database is not safe against a second one."""
    with Path("mlflow.db.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_sqlite(path: Path) -> None:
    """Fail at once where MLflow would retry for minutes: a database that cannot be written or is none."""
    import sqlite3

    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=20)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()
    finally:
        connection.close()


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))


def _whole(tags: Mapping[str, str]) -> dict[str, str]:
    return {_name(key): cut(value, _TAG_LENGTH) for key, value in tags.items()}


def _name(text: str) -> str:
    """`text` as a name that MLflow accepts."""
    return re.sub(r"[^\w.\-/: ]", "_", text)[:_NAME_LENGTH]


def cut(text: str, length: int) -> str:
    """`text`, shortened to `length` characters."""
    return text if len(text) <= length else text[: length - 3] + "..."


def shown(reason: Exception) -> str:
    """An exception as one short line that tells no password."""
    return cut(without_password(" ".join(f"{type(reason).__name__}: {reason}".split())), 300)


def without_password(text: str) -> str:
    """`text`, addresses in it without user and password."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def user() -> str:
    """The name of the user, as far as it is known."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"

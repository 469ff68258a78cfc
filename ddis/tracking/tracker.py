"""What is said to MLflow. Everything here may raise what MLflow raises, and everything may be said twice.

To say it twice changes nothing: MLflow holds a metric of the same run, name, time, step and value once, and parameters, tags,
files and data sets by name; a network is looked for before it is logged.
"""

import fcntl
import json
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddis.errors import InputError
from ddis.provenance import file_digest
from ddis.tracking.record import Line

if TYPE_CHECKING:
    from mlflow.entities import Run

_log = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
FILE_LIMIT_BYTES = 64 * 2**20
# Left to itself MLflow tries for minutes, prints addresses, and reports its use to its makers. A request is not repeated: one
# whose answer was lost may have created a run.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# MLflow's word for an experiment with trainings, not with language models.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class Tracker:
    """The MLflow server or database at an address. Making one connects; the first connection to a database makes its tables."""

    def __init__(self) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        # What goes wrong is said once, by us.
        for name in ("mlflow", "alembic", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        uri = tracking_uri()
        self.database = Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None
        if self.database is None:
            self.client = MlflowClient(uri)
            return
        # MLflow's set-up of a database is not safe against a second one.
        self.database.parent.mkdir(parents=True, exist_ok=True)
        with self.database.with_name(f"{self.database.name}.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _check(self.database)
            self.client = MlflowClient(f"sqlite:///{self.database}")
            self.check()
            _relocate(self.database)

    def check(self) -> None:
        """Raises what MLflow raises if it gives no answer."""
        self.client.search_experiments(max_results=1)

    def experiment(self, study: str) -> str:
        """The experiment of a study, created or restored where need be; with a database, its files lie beside that."""
        found = self.client.get_experiment_by_name(study)
        if found is None:
            place = None if self.database is None else str(self.database.parent / "mlruns" / study)
            return str(self.client.create_experiment(study, place, EXPERIMENT_TAGS | {"ddis.study": study}))
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        for name in EXPERIMENT_TAGS.keys() - found.tags.keys():
            self.client.set_experiment_tag(found.experiment_id, name, EXPERIMENT_TAGS[name])
        return str(found.experiment_id)

    def runs(self, experiment: str) -> dict[str, "Run"]:
        """All runs of an experiment by their tag `ddis.run`, deleted ones too. A lost answer may have made two: one goes."""
        from mlflow.entities import ViewType

        found: dict[str, Run] = {}
        token: str | None = None
        while token != "":
            page = self.client.search_runs([experiment], run_view_type=ViewType.ALL, page_token=token)
            token = page.token or ""
            for run in page:
                key = run.data.tags.get("ddis.run", "")
                pair = [known for known in (found.get(key), run) if known]
                pair.sort(key=lambda run: (run.info.lifecycle_stage, -int(run.data.tags.get("ddis.sent", 0))))
                found[key] = pair[0]
                if key and len(pair) > 1 and pair[1].info.lifecycle_stage == "active":
                    self.client.delete_run(pair[1].info.run_id)
        return found

    def create(self, experiment: str, name: str, begin: int, tags: Mapping[str, str]) -> str:
        """Id of a new run that began at a time (ms since 1970)."""
        return str(self.client.create_run(experiment, begin, dict(tags), name).info.run_id)

    def log(
        self,
        run_id: str,
        metrics: Sequence[tuple[str, Any, int, int]] = (),
        parameters: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Metrics are name, value, time (ms since 1970) and step."""
        from mlflow.entities import Metric, Param, RunTag

        batches: list[tuple[str, list[Any], int]] = [
            ("metrics", [Metric(_name(name), float(value), time, step) for name, value, time, step in metrics], 1000),
            ("params", [Param(_name(key), cut(value, 6000)) for key, value in (parameters or {}).items()], 100),
            ("tags", [RunTag(_name(key), cut(value, 8000)) for key, value in (tags or {}).items()], 100),
        ]  # with the longest values, and the most of them in one request, that MLflow accepts
        for kind, items, size in batches:
            for begin in range(0, len(items), size):
                part: dict[str, Any] = {kind: items[begin : begin + size]}
                self.client.log_batch(run_id, **part)

    def set_state(self, run_id: str, status: str, end: int | None, error: str = "") -> None:
        """How a run ended, and when (ms since 1970); or that it is at work (again)."""
        if end is None:
            self.client.update_run(run_id, status)
        else:
            self.client.set_terminated(run_id, status, end)
        if error:
            self.log(run_id, tags={"ddis.error": error})
        elif "ddis.error" in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, "ddis.error")

    def attach(self, run_id: str, path: Path, line: Line, folder: str | None = None) -> None:
        """A recorded file; of one that is too large, or no longer what it was, only a tag tells its path and SHA-256."""
        if line["bytes"] <= FILE_LIMIT_BYTES:
            if path.is_file() and file_digest(path) == line["sha256"]:
                self.client.log_artifact(run_id, str(path), folder)
                return
            _log.warning("%s is no longer the file that the record names; MLflow gets its path and SHA-256", path)
        self.log(run_id, tags={f"artifact.{path.name}": f"{path} sha256:{line['sha256']}"})

    def add_dataset(self, run_id: str, path: Path, line: Line) -> None:
        """The data that a run learns from."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source, profile = json.dumps({"uri": str(path)}), json.dumps(line["profile"])
        data = Dataset(line["name"], line["digest"][:36], "local", source, profile=profile)
        self.client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])

    def add_network(self, run_id: str, study: Path, line: Line) -> None:
        """A trained network as a logged model of the run, which `mlflow.pyfunc.load_model` loads."""
        from mlflow.entities import LoggedModelOutput

        run, weights = self.client.get_run(run_id), study / line["folder"] / "weights.safetensors"
        if not weights.is_file() or weights.stat().st_size > FILE_LIMIT_BYTES:
            self.log(run_id, tags={"artifact.weights": str(weights)})
            return
        found = self.client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
        name = "-".join(Path(line["folder"]).parts[-2:]).replace(".", "_")  # names of models take no dots
        model = found[0] if found else self.client.create_logged_model(run.info.experiment_id, name, run_id)
        if run.outputs is None or model.model_id not in [output.model_id for output in run.outputs.model_outputs]:
            self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        if model.status != "READY":
            with tempfile.TemporaryDirectory() as temporary:
                self.client.log_model_artifacts(model.model_id, _pyfunc(Path(temporary), study, line))
            self.client.finalize_logged_model(model.model_id, "READY")


def _pyfunc(work: Path, study: Path, line: Line) -> str:
    """A folder as `mlflow.pyfunc` wants it: the network, its study's configuration, and its signature."""
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from numpy import dtype

    shutil.copytree(study / line["folder"], work / "network" / line["folder"])
    shutil.copy(study / "config.yaml", work / "network")
    inputs, outputs = (
        Schema([TensorSpec(dtype("float32"), tuple(shape), name) for name, shape in line[side].items()])
        for side in ("inputs", "outputs")
    )
    signature, needs = ModelSignature(inputs, outputs), ["torch", "neuraloperator"]
    with warnings.catch_warnings(action="ignore"):  # an example would have to be computed
        pyfunc.save_model(work / "model", "ddis.stages.pyfunc", work / "network", signature=signature, pip_requirements=needs)
    return str(work / "model")


@contextmanager
def answering() -> Iterator[None]:
    """Makes an InputError of whatever goes wrong with MLflow."""
    try:
        yield
    except Exception as reason:
        advice = "start it, or set MLFLOW_TRACKING_URI to the address of another"
        raise InputError(f"MLflow at {shown_uri()} cannot be used: {shown(reason)}; {advice}") from reason


def _check(database: Path) -> None:
    """Fails at once where MLflow would retry for minutes: a database that cannot be written or is none."""
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


def _relocate(database: Path) -> None:
    """MLflow stores where the files of an experiment lie as an absolute path: beside the database, wherever that now is."""
    columns = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}
    query = "select experiment_id, artifact_location from experiments join experiment_tags using (experiment_id) where key = ?"
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        for number, old in connection.execute(query, ("ddis.study",)).fetchall():
            new = str(database.parent / "mlruns" / Path(old).name)
            if old != new and re.match("/|file:", old):
                for table, column in columns.items():
                    moved = f"update {table} set {column} = ? || substr({column}, ?) where experiment_id = ? and {column} like ?"
                    connection.execute(moved, (new, len(old) + 1, number, f"{old}%"))


def _name(text: str) -> str:
    """`text` as a name that MLflow accepts."""
    return re.sub(r"[^\w.\-/: ]", "_", text)[:250]


def cut(text: str, length: int) -> str:
    """`text`, shortened to `length` characters."""
    return text if len(text) <= length else text[: length - 3] + "..."


def tracking_uri() -> str:
    """The address of MLflow: MLFLOW_TRACKING_URI, else the database in this folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def shown_uri() -> str:
    """The address without its password."""
    return _without_password(tracking_uri())


def shown(reason: Exception) -> str:
    """An exception as one short line that tells no password."""
    return cut(_without_password(" ".join(f"{type(reason).__name__}: {reason}".split())), 300)


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)

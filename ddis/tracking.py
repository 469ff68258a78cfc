"""Tracking: every stage is an MLflow run under its study's parent run, and a local record that needs no server.

The files of a study are the truth and MLflow only watches. Each event of a stage goes first to
`results/<study>/tracking/<stage>.jsonl`, one JSON object a line, then to MLflow. When MLflow fails or gives no answer, one
warning is logged, the stage goes on without it, and the record stays whole.

Lines of the record have `id` (`<attempt>-<number>`, unique), `kind` and `time` (ms since 1970). Kinds: `start` (key, attempt,
parameters, tags), `metrics` (step, values), `tag`, `artifact` (path, folder, bytes, sha256), `end` (status, error) and `sent`
(`through`: the lines of this attempt up to that number are in MLflow run `run_id`). To send a line again does no harm: MLflow
drops a metric of the same name, time, step and value, and the run is found by its tag `ddis.key`.

`DDIS_TRACKING=off` keeps the local record only. Without MLFLOW_TRACKING_URI runs go to `./mlflow.db`, where a plain
`mlflow ui` shows them.
"""

import fcntl
import getpass
import hashlib
import json
import logging
import math
import os
import queue
import re
import shlex
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from ddis.provenance import file_digest, peak_memory_mb

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

_log = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
SEND_SECONDS = 5.0
OPEN_LIMIT_SECONDS = 120.0
CALL_LIMIT_SECONDS = 60.0
KILLED_LIMIT_SECONDS = 10.0
ARTIFACT_LIMIT_BYTES = 64 * 2**20
# What MLflow accepts in one request, and the longest names and values.
_METRICS_PER_BATCH, _PARAMETERS_PER_BATCH = 1000, 100
_NAME_LENGTH, _PARAMETER_LENGTH, _TAG_LENGTH = 250, 6000, 8000
# A dead server must cost seconds; left to itself MLflow tries for minutes, prints addresses, and reports its use to its makers.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Terminated(BaseException):
    """SIGTERM was received. No ordinary `except Exception` stops it; the stage's run ends as KILLED."""


def install_sigterm_handler() -> None:
    """From now on the first SIGTERM raises Terminated in the main thread; later ones are ignored while the process ends."""

    def terminate(number: int, frame: Any) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated("SIGTERM")

    signal.signal(signal.SIGTERM, terminate)


def ensure_study(study: str, config_path: Path, enabled: bool = True) -> None:
    """Create the database's tables, the study's experiment and its parent run where they are missing; attach the configuration.

    Called once, in a job that all stages depend on. Never raises because of MLflow.
    """
    watcher = _Watcher(study, f"the study's configuration is in {config_path}", enabled)

    def create() -> None:
        run_id = _open_study(watcher.connect, study)[2]
        watcher.client.set_tag(run_id, "ddis.config_sha256", file_digest(config_path))
        watcher.client.log_artifact(run_id, str(config_path))

    watcher.call(create, OPEN_LIMIT_SECONDS)
    watcher.close()


@contextmanager
def stage_run(
    study: str, stage: str, parameters: Mapping[str, Any], tags: Mapping[str, Any] | None = None, enabled: bool = True
) -> Iterator["StageRun"]:
    """The MLflow run of a stage, nested under its study's parent run, and its local record.

    `stage` names the work within the study, such as `train/poisson/prior`; it is the name of the run and, with slashes as
    folders, of the record. `parameters` are the settings that the result depends on: a stage called again with the same ones
    continues its unfinished run (tag `ddis.attempt`), otherwise a new run begins. `tags` say what may differ between attempts
    (commit, device, digest of the data). Nested mappings are flattened with dots.

    The run ends FINISHED, FAILED (an exception), or KILLED (KeyboardInterrupt, Terminated); exceptions pass through. Raises
    ValueError for a name that is no relative path of plain words, and nothing because of MLflow or a full disk.
    """
    run = StageRun(study, stage, parameters, tags or {}, enabled)
    status, error = "FAILED", ""
    try:
        run._open()
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, Terminated) as reason:
        status, error = "KILLED", type(reason).__name__
        raise
    except SystemExit as reason:
        status, error = ("FAILED", f"exit {reason.code}") if reason.code else ("FINISHED", "")
        raise
    except BaseException as reason:
        error = f"{type(reason).__name__}: {reason}"
        raise
    finally:
        run._close(status, error)


class StageRun:
    """What `stage_run` gives to a stage: metrics, artifacts and tags. No method raises because of MLflow."""

    def __init__(self, study: str, stage: str, parameters: Mapping[str, Any], tags: Mapping[str, Any], enabled: bool) -> None:
        self.study, self.stage = study, stage
        self.key = _settings_key(stage, parameters)
        self._begin = time.monotonic()
        self._due = self._begin + SEND_SECONDS
        self._metrics: list[tuple[str, float, int, int]] = []
        self._tags: dict[str, str] = {}
        self._run_id = ""
        self.record = _Record(record_path(study, stage))
        self.attempt = self.record.next_attempt(self.key)
        self._watcher = _Watcher(stage, f"its record is complete in {self.record.path}", enabled)
        self._parameters = flatten(parameters)
        self._start_tags = self._attempt_tags() | flatten(tags)
        self.record.write(
            "start",
            study=study,
            stage=stage,
            key=self.key,
            attempt=self.attempt,
            mlflow=self._watcher.on,
            parameters=parameters,
            tags=self._start_tags,
        )

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Numbers at a step. They reach MLflow in batches, every few seconds and at the end."""
        numbers = {name: float(value) for name, value in values.items()}
        now = self.record.write("metrics", step=step, values={n: _json_number(v) for n, v in numbers.items()})
        self._metrics += [(_name(name), value, now, step) for name, value in numbers.items()]
        if time.monotonic() >= self._due:
            self._send()

    def tag(self, key: str, value: Any) -> None:
        """A word about this attempt; sent with the next metrics."""
        self.record.write("tag", key=key, value=str(value))
        self._tags[key] = str(value)

    def artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Attach a file of the study; of one above 64 MiB only the path and SHA-256, as a tag. A missing file is a warning."""
        path = Path(path)
        try:
            size, digest = path.stat().st_size, file_digest(path)
        except OSError as reason:
            _log.warning("%s: cannot attach %s: %s", self.stage, path, reason.strerror or reason)
            return
        self.record.write("artifact", path=str(path), folder=folder, bytes=size, sha256=digest)
        if size > ARTIFACT_LIMIT_BYTES:
            self._tags[f"artifact.{path.name}"] = f"{path} sha256:{digest}"
        else:
            self._watcher.call(lambda: self._watcher.client.log_artifact(self._run_id, str(path), folder))

    def _attempt_tags(self) -> dict[str, str]:
        tags = {"ddis.attempt": str(self.attempt), "ddis.host": os.uname().nodename, "ddis.pid": str(os.getpid())}
        job = os.environ.get("SLURM_JOB_ID")
        return tags | ({"ddis.slurm_job": job} if job else {})

    def _open(self) -> None:
        self._watcher.call(self._open_run, OPEN_LIMIT_SECONDS)

    def _open_run(self) -> None:
        client, experiment, parent = _open_study(self._watcher.connect, self.study)
        fixed = {"ddis.kind": "stage", "ddis.study": self.study, "ddis.stage": self.stage, "ddis.key": self.key}
        fixed |= {"mlflow.parentRunId": parent, "mlflow.source.name": f"ddis {shlex.join(sys.argv[1:])}"}
        fixed["mlflow.user"] = _user()
        runs = client.search_runs(
            [experiment],
            f"tags.`mlflow.parentRunId` = '{parent}' and tags.`ddis.key` = '{self.key}' and attributes.status != 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        for run in runs:
            client.update_run(run.info.run_id, status="RUNNING")
            if "ddis.error" in run.data.tags:
                client.delete_tag(run.info.run_id, "ddis.error")
        run = runs[0] if runs else client.create_run(experiment, tags=_whole_tags(fixed), run_name=self.stage)
        self._run_id = run.info.run_id
        known = run.data.params
        parameters = {_name(key): value for key, value in self._parameters.items()}
        new = {key: _cut(value, _PARAMETER_LENGTH) for key, value in parameters.items() if key not in known}
        _log_batches(client, self._run_id, [], new, fixed | self._start_tags)
        self.record.sent(self._run_id, self._watcher.shown_uri)

    def _send(self, limit: float = CALL_LIMIT_SECONDS) -> None:
        begin = time.monotonic()
        metrics, tags, through = list(self._metrics), dict(self._tags), self.record.number

        def send() -> None:
            _log_batches(self._watcher.client, self._run_id, metrics, {}, tags)
            self.record.sent(self._run_id, self._watcher.shown_uri, through)

        self._watcher.call(send, limit)
        # Kept until now: an interruption while waiting sends them once more, and MLflow drops what it has.
        self._metrics.clear()
        self._tags.clear()
        now = time.monotonic()
        # A slow server may take a tenth of the stage's time, not more.
        self._due = now + max(SEND_SECONDS, 10 * (now - begin))

    def _close(self, status: str, error: str) -> None:
        limit = KILLED_LIMIT_SECONDS if status == "KILLED" else CALL_LIMIT_SECONDS
        usage = {"seconds": time.monotonic() - self._begin, "peak_memory_mb": peak_memory_mb()}
        self._due = math.inf
        self.metrics(usage, self.attempt)
        if error:
            self.tag("ddis.error", error)
        self._send(limit)
        self.record.write("end", status=status, error=error)
        through = self.record.number

        def end() -> None:
            self._watcher.client.set_terminated(self._run_id, status)
            self.record.sent(self._run_id, self._watcher.shown_uri, through)

        self._watcher.call(end, limit)
        self._watcher.close()


def record_path(study: str, stage: str) -> Path:
    """Where the local record of a stage is; raises ValueError for a name that would lead elsewhere."""
    for what, name in (("study", study), ("stage", stage)):
        if not all(re.fullmatch(r"[\w-][\w.-]*", part) for part in name.split("/")):
            raise ValueError(f"{what} {name!r}: letters, digits, '_', '-' and '.' are accepted, in parts divided by '/'")
    return Path("results", study, "tracking", f"{stage}.jsonl")


def read_record(path: Path) -> list[dict[str, Any]]:
    """The lines of a local record in their order; one that a killed process left half-written is skipped."""
    lines = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    for line in text.split("\n"):
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as one, keys joined with dots, values as text (lists as JSON)."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, list | tuple | Mapping):
            flat[name] = json.dumps(value, default=_json_value)
        else:
            flat[name] = str(value)
    return flat


class _Record:
    """The local record of one attempt; several processes may append to the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self._attempt_id = uuid.uuid4().hex[:12]
        self._broken = False
        self._lock = threading.Lock()

    def next_attempt(self, key: str) -> int:
        """1, or one more than the attempts with the same settings since the last that finished."""
        attempt, keys = 0, {}
        try:
            lines = read_record(self.path)
        except OSError as reason:
            self._warn(reason)
            return 1
        for line in lines:
            owner = line["id"].rsplit("-", 1)[0]
            if line["kind"] == "start":
                keys[owner] = line["key"]
                attempt += line["key"] == key
            elif line["kind"] == "end" and line["status"] == "FINISHED" and keys.get(owner) == key:
                attempt = 0
        return attempt + 1

    def write(self, kind: str, **content: Any) -> int:
        """Append one line; returns its time in ms since 1970."""
        now = time.time_ns() // 10**6
        with self._lock:
            self.number += 1
            line = {"id": f"{self._attempt_id}-{self.number}", "kind": kind, "time": now, **content}
            if not self._broken:
                try:
                    self._append(json.dumps(line, default=_json_value) + "\n")
                except OSError as reason:
                    self._warn(reason)
        return now

    def sent(self, run_id: str, uri: str, through: int | None = None) -> None:
        """Note that the lines up to `through` (default: all) are in MLflow."""
        self.write("sent", through=self.number if through is None else through, run_id=run_id, uri=uri)

    def _append(self, line: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+", buffering=0) as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                # A killed process may have left half a line.
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())

    def _warn(self, reason: OSError) -> None:
        self._broken = True
        _log.warning("cannot write the tracking record %s: %s; going on without it", self.path, reason.strerror)


class _Watcher:
    """Calls to MLflow in a thread of their own, each with a time limit; after the first failure there are no more."""

    client: "MlflowClient"

    def __init__(self, subject: str, fallback: str, enabled: bool) -> None:
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
        self.shown_uri = _without_password(self.uri)
        self.on = enabled and os.environ.get("DDIS_TRACKING", "").lower() != "off"
        self._subject, self._fallback = subject, fallback
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        if self.on:
            # Daemonic: a call that hangs must not keep the process from ending.
            threading.Thread(target=self._work, name="tracking", daemon=True).start()

    def connect(self) -> "MlflowClient":
        """Set up the client; the first connection to a database also creates its tables."""
        from mlflow import MlflowClient

        uri = self.uri
        if uri.startswith("sqlite:///"):
            path = Path(uri.removeprefix("sqlite:///")).absolute()
            _check_sqlite(path)
            # MLflow keeps connections by name, even where the working directory has changed.
            uri = f"sqlite:///{path}"
        self.client = MlflowClient(tracking_uri=uri)
        return self.client

    def call(self, function: Callable[[], T], limit: float = CALL_LIMIT_SECONDS) -> None:
        if not self.on:
            return
        try:
            _import_mlflow()
            future: Future[T] = Future()
            self._calls.put((function, future))
            future.result(limit)
        except TimeoutError:
            self._give_up(f"no answer within {limit:g} s")
        except Exception as reason:
            self._give_up(" ".join(f"{type(reason).__name__}: {reason}".split()))

    def close(self) -> None:
        self._calls.put(None)

    def _give_up(self, reason: str) -> None:
        self.on = False
        message = "%s: MLflow at %s failed (%s); the stage goes on without it, %s"
        _log.warning(message, self._subject, self.shown_uri, _cut(_without_password(reason), 300), self._fallback)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future = call
            try:
                future.set_result(function())
            except BaseException as reason:
                future.set_exception(reason)


def _import_mlflow() -> None:
    """Import MLflow in the calling thread, where no time limit applies: a cold network disk may need a minute."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    # What goes wrong is said once, by us.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


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


def _open_study(connect: Callable[[], "MlflowClient"], study: str) -> tuple["MlflowClient", str, str]:
    """Client, experiment and parent run of a study, created where missing; one process at a time."""
    with _locked():
        client = connect()
        experiment = _experiment(client, study)
        found = client.search_runs(
            [experiment], "tags.`ddis.kind` = 'study'", order_by=["attributes.start_time ASC"], max_results=1
        )
        if found:
            return client, experiment, found[0].info.run_id
        tags = {
            "ddis.kind": "study",
            "ddis.study": study,
            "mlflow.user": _user(),
            "mlflow.source.name": "ddis",
            "mlflow.note.content": f"Study {study}. Its stages are the runs below this one.",
        }
        run_id = client.create_run(experiment, tags=tags, run_name=study).info.run_id
        # It only holds its stages together; nothing would end it after a kill.
        client.set_terminated(run_id)
        return client, experiment, run_id


def _experiment(client: "MlflowClient", study: str) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        try:
            return client.create_experiment(study, tags={"ddis.study": study})
        except MlflowException:
            # Another machine may have been faster.
            experiment = client.get_experiment_by_name(study)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


@contextmanager
def _locked() -> Iterator[None]:
    """One process of this folder at a time: MLflow's first set-up of a database is not safe against a second one."""
    with Path("mlflow.db.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _log_batches(
    client: "MlflowClient",
    run_id: str,
    metrics: list[tuple[str, float, int, int]],
    parameters: Mapping[str, str],
    tags: Mapping[str, str],
) -> None:
    from mlflow.entities import Metric, Param, RunTag

    for part in _chunks([Metric(*metric) for metric in metrics], _METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=part)
    for part in _chunks([Param(*parameter) for parameter in parameters.items()], _PARAMETERS_PER_BATCH):
        client.log_batch(run_id, params=part)
    for part in _chunks([RunTag(*tag) for tag in _whole_tags(tags).items()], _PARAMETERS_PER_BATCH):
        client.log_batch(run_id, tags=part)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))


def _whole_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {_name(key): _cut(value, _TAG_LENGTH) for key, value in tags.items()}


def _name(text: str) -> str:
    """`text` as a name that MLflow accepts."""
    return re.sub(r"[^\w.\-/: ]", "_", text)[:_NAME_LENGTH]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _settings_key(stage: str, parameters: Mapping[str, Any]) -> str:
    text = json.dumps([stage, parameters], sort_keys=True, default=_json_value)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _json_number(value: float) -> float | str:
    # JSON knows no infinity; float() reads the text back.
    return value if math.isfinite(value) else str(value)


def _json_value(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)

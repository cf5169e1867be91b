"""Tracking in MLflow: a Lightning logger that an outage of the server neither stops nor robs of anything.

    python -m model sync --directory build      # send what a dead server did not take

What a run logs goes to an `Outbox` beside its checkpoints; a thread sends it from there. The run's id is kept beside them too,
so that a resumed run goes on under the same one.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import requests
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from model.errors import ConfigError
from model.outbox import Entry, Outbox

EMBEDDED_URI = "sqlite:///build/mlflow.db"
EXPERIMENT = "chiffre"

# What can go wrong on the way to a server, as the client reports it.
SENDING_ERRORS = (MlflowException, requests.RequestException, OSError)

_RUN = "run.json"
_RETRY_SECONDS = 2.0

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class TrackingError(RuntimeError):
    """The tracking server did not do what was asked; trying again later may help."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Which run, on which server."""

    run_id: str
    tracking_uri: str

    @classmethod
    def find(cls, directory: Path) -> "Run | None":
        """The run whose checkpoints are in ``directory``, if there is one."""
        path = directory / _RUN
        return cls(**json.loads(path.read_text())) if path.exists() else None

    @staticmethod
    def forget(directory: Path) -> None:
        """Make ``directory`` one without a run."""
        (directory / _RUN).unlink(missing_ok=True)

    def save(self, directory: Path) -> None:
        """Note the run in ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        scratch = directory / f".{_RUN}"
        scratch.write_text(json.dumps(asdict(self)) + "\n")
        scratch.replace(directory / _RUN)


def connect(tracking_uri: str) -> MlflowClient:
    """A client whose requests give up in seconds, not in MLflow's minutes, and that reports to nobody but the server."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    if tracking_uri.startswith("sqlite:///"):
        Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def default_tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or a SQLite file that needs no server."""
    return os.environ.get("MLFLOW_TRACKING_URI") or EMBEDDED_URI


def brief(error: Exception) -> str:
    """The first line of an error's message, cut to what fits a log line."""
    return str(error).partition("\n")[0][:160]


def git_revision() -> str | None:
    """The commit of the code that runs, marked where it was changed since; ``GIT_REVISION`` in an image without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, cwd=Path(__file__).parent)
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("GIT_REVISION")
    return found.stdout.strip()


class MlflowLogger(Logger):
    """Lightning's way into MLflow. It does nothing until `open` has told it which run it is.

    Args:
        tracking_uri: Of the server; ``MLFLOW_TRACKING_URI``, or else a SQLite file, where none is given.
        experiment: The experiment's name; made where it does not exist.
        run_name: The run's name; MLflow invents one where none is given.
        connect_timeout_seconds: How long to wait for the server before training starts.
        flush_timeout_seconds: How long to wait, at the end, for what was not sent yet.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        experiment: str = EXPERIMENT,
        run_name: str | None = None,
        connect_timeout_seconds: float = 60.0,
        flush_timeout_seconds: float = 30.0,
    ) -> None:
        super().__init__()
        self.tracking_uri = tracking_uri or default_tracking_uri()
        self.experiment_name, self.run_name = experiment, run_name
        self.connect_timeout_seconds, self.flush_timeout_seconds = connect_timeout_seconds, flush_timeout_seconds
        self.run: Run | None = None
        self._outbox: Outbox | None = None
        self._sender: _Sender | None = None

    @property
    def name(self) -> str:
        """The experiment."""
        return self.experiment_name

    @property
    def version(self) -> str:
        """The run's id."""
        return self.run.run_id if self.run else ""

    @rank_zero_only
    def open(self, directory: Path, *, resume: bool) -> None:
        """Begin a run, or go on with the one in ``directory``. Raises `TrackingError` where no run can be begun."""
        self.run = Run.find(directory) if resume else None
        if self.run is None:
            self.run = Run(run_id=self._create(), tracking_uri=self.tracking_uri)
            self.run.save(directory)
        self._outbox = Outbox(directory)
        self._sender = _Sender(self._outbox, Courier(self.run, directory), directory)
        self._log("status", status="RUNNING")

    def _create(self) -> str:
        """A new run on the server, which may still be starting."""
        deadline = time.monotonic() + self.connect_timeout_seconds
        while True:
            try:
                client = connect(self.tracking_uri)
                tags = {"mlflow.source.name": "python -m model fit", "mlflow.source.git.commit": git_revision() or ""}
                run = client.create_run(self._experiment_id(client), run_name=self.run_name, tags=tags)
            except SENDING_ERRORS as error:
                reason = brief(error)
                if time.monotonic() > deadline:
                    message = f"MLflow at {self.tracking_uri} cannot be reached: {reason}"
                    raise TrackingError(message) from error
                print(f"waiting for MLflow at {self.tracking_uri}: {reason}", file=sys.stderr, flush=True)
                time.sleep(_RETRY_SECONDS)
            else:
                return str(run.info.run_id)

    def _experiment_id(self, client: MlflowClient) -> str:
        if found := client.get_experiment_by_name(self.experiment_name):
            return str(found.experiment_id)
        embedded = self.tracking_uri.startswith("sqlite:///")
        folder = Path(self.tracking_uri.removeprefix("sqlite:///")).parent / "mlartifacts"
        return client.create_experiment(self.experiment_name, artifact_location=folder.resolve().as_uri() if embedded else None)

    def _log(self, kind: str, **content: Any) -> None:
        if self._outbox and self._sender:
            self._outbox.append({"kind": kind, **content})
            self._sender.wake()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures, as they stand at the optimizer step ``step``."""
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        self._log("metrics", values=values, step=step or 0, timestamp_ms=time.time_ns() // 1_000_000)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]  # Lightning allows a Namespace too
        """Log parameters; MLflow keeps their text, and refuses another value later."""
        self._log("params", values={name: str(value) for name, value in params.items()})

    @rank_zero_only
    def log_artifact(self, path: str, folder: str = "") -> None:
        """Log a file or directory, given relative to the run's directory, into ``folder`` of the run's artifacts."""
        self._log("artifact", path=path, folder=folder)

    def finalize(self, status: str) -> None:
        """Lightning's word that a part is over: only a failure ends the run here, since a bundle is still to come."""
        if status == "failed":
            self.close("FAILED")

    @rank_zero_only
    def close(self, status: Status, timeout_seconds: float | None = None) -> None:
        """End the run: send what is left, and say so where that cannot be done now."""
        if self._sender:
            self._log("status", status=status)
            self._sender.close(self.flush_timeout_seconds if timeout_seconds is None else timeout_seconds)
            self._sender = None


class Courier:
    """Takes entries of a run's outbox to the server. An entry sent twice is there once: each names its time and step."""

    def __init__(self, run: Run, directory: Path) -> None:
        self.run, self.directory = run, directory
        self._client: MlflowClient | None = None

    def send(self, entry: Entry) -> None:
        """Send an entry. Raises one of `SENDING_ERRORS`."""
        self._client = client = self._client or connect(self.run.tracking_uri)
        run_id = self.run.run_id
        match entry["kind"]:
            case "metrics":
                stamp, step = entry["timestamp_ms"], entry["step"]
                client.log_batch(run_id, metrics=[Metric(name, value, stamp, step) for name, value in entry["values"].items()])
            case "params":
                client.log_batch(run_id, params=[Param(name, value) for name, value in entry["values"].items()])
            case "artifact":
                path = self.directory / entry["path"]
                log = client.log_artifacts if path.is_dir() else client.log_artifact
                log(run_id, str(path), entry["folder"] or None)
            case "status":
                client.set_terminated(run_id, entry["status"]) if entry["status"] != "RUNNING" else client.update_run(
                    run_id, "RUNNING"
                )
            case kind:
                message = f"an outbox entry of kind {kind!r}"
                raise AssertionError(message)


class _Sender:
    """A thread that empties an outbox while training goes on."""

    def __init__(self, outbox: Outbox, courier: Courier, directory: Path) -> None:
        self._outbox, self._courier, self._directory = outbox, courier, directory
        self._wake, self._stopping = threading.Event(), False
        self._is_down = False
        self._thread = threading.Thread(target=self._run, name="mlflow-sender", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def close(self, timeout_seconds: float) -> None:
        self._stopping = True
        self.wake()
        self._thread.join(timeout_seconds)
        if left := len(self._outbox.pending()):
            self._say(f"{left} entries are kept in {self._outbox.path}; send them with: {sync_command(self._directory)}")

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                self._outbox.deliver(self._courier.send)
            except SENDING_ERRORS as error:
                if not self._is_down:
                    self._say(f"MLflow did not answer ({brief(error)}); training goes on, nothing is lost")
                self._is_down = True
                time.sleep(_RETRY_SECONDS)
                self.wake()
            else:
                if self._is_down:
                    self._say("MLflow answers again; all that was kept has been sent")
                self._is_down = False
                if self._stopping and not self._wake.is_set():
                    return

    @staticmethod
    def _say(message: str) -> None:
        print(message, file=sys.stderr, flush=True)


def sync_command(directory: Path) -> str:
    """What sends the rest of a run's outbox."""
    return f"python -m model sync --directory {directory}"


def sync(directory: Path = Path("build")) -> None:
    """Send what a tracking server did not take while a model was trained.

    Args:
        directory: The run's directory, with its checkpoints and its outbox.

    Raises:
        ConfigError: There is no run.
        TrackingError: The server does not answer; all that was not sent is still there.
    """
    run = Run.find(directory)
    if run is None:
        message = f"directory: expected a run's directory, {directory} has no {_RUN}"
        raise ConfigError(message)
    outbox = Outbox(directory)
    pending = len(outbox.pending())
    print(f"run {run.run_id} at {run.tracking_uri}: {pending} entries to send", flush=True)
    try:
        outbox.deliver(Courier(run, directory).send)
    except SENDING_ERRORS as error:
        kept = len(outbox.pending())
        message = f"MLflow at {run.tracking_uri} did not take them, {kept} are kept: {brief(error)}"
        raise TrackingError(message) from error
    print("all sent", flush=True)

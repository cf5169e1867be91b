"""From a run's outbox to its MLflow server.

python -m model sync --directory build      # send what a dead server did not take
"""

import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import requests
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from model.errors import ConfigError
from model.outbox import Entry, Outbox

# What can go wrong on the way to a server, as the client reports it.
SENDING_ERRORS = (MlflowException, requests.RequestException, OSError)
RETRY_SECONDS = 2.0

_RUN = "run.json"


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


def is_refusal(error: Exception) -> bool:
    """Whether a server answered, and will answer the same next time."""
    return isinstance(error, MlflowException) and 400 <= error.get_http_status_code() < 500


def brief(error: Exception) -> str:
    """The first line of an error's message, cut to what fits a log line."""
    return str(error).partition("\n")[0][:160]


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


class Sender:
    """A thread that empties an outbox while training goes on."""

    def __init__(self, outbox: Outbox, courier: Courier, directory: Path) -> None:
        self._outbox, self._courier, self._directory = outbox, courier, directory
        self._wake, self._stopping = threading.Event(), False
        self._is_down = False
        self._thread = threading.Thread(target=self._run, name="mlflow-sender", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()

    def close(self, timeout_seconds: float) -> None:
        """Send what is left, as far as that can be done in ``timeout_seconds``, and say what could not."""
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
                    fault = "refused an entry" if is_refusal(error) else "did not answer"
                    self._say(f"MLflow {fault} ({brief(error)}); training goes on, nothing is lost")
                self._is_down = True
                time.sleep(RETRY_SECONDS)
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

"""Tracking in MLflow: a Lightning logger that an outage of the server neither stops nor robs of anything.

What a run logs goes to an `Outbox` beside its checkpoints, and from there to the server. The run's id is kept beside them too, so
that a resumed run goes on under the same one.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from model.delivery import RETRY_SECONDS, SENDING_ERRORS, Courier, Run, Sender, TrackingError, brief, connect, is_refusal
from model.outbox import Outbox

EMBEDDED_URI = "sqlite:///build/mlflow.db"
EXPERIMENT = "chiffre"

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


def default_tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or a SQLite file that needs no server."""
    return os.environ.get("MLFLOW_TRACKING_URI") or EMBEDDED_URI


def git_revision() -> str | None:
    """The commit of the code that runs, marked where it was changed since; ``GIT_REVISION`` in an image without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, cwd=Path(__file__).parent)
    except (OSError, subprocess.SubprocessError):
        # An image that was built without being told has an empty one.
        return os.environ.get("GIT_REVISION") or None
    return found.stdout.strip()


def experiment_id(client: MlflowClient, tracking_uri: str, name: str = EXPERIMENT) -> str:
    """The experiment called ``name``, made where it does not exist; artifacts of an embedded store are beside its file."""
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    embedded = tracking_uri.startswith("sqlite:///")
    folder = Path(tracking_uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    return client.create_experiment(name, artifact_location=folder.resolve().as_uri() if embedded else None)


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
        self._sender: Sender | None = None

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
        self._sender = Sender(self._outbox, Courier(self.run, directory), directory)
        self._log("status", status="RUNNING")

    def _create(self) -> str:
        """A new run on the server, which may still be starting."""
        deadline = time.monotonic() + self.connect_timeout_seconds
        while True:
            try:
                client = connect(self.tracking_uri)
                tags = {"mlflow.source.name": "python -m model fit", "mlflow.source.git.commit": git_revision() or ""}
                run = client.create_run(
                    experiment_id(client, self.tracking_uri, self.experiment_name), run_name=self.run_name, tags=tags
                )
            except SENDING_ERRORS as error:
                reason = brief(error)
                if is_refusal(error) or time.monotonic() > deadline:
                    message = f"MLflow at {self.tracking_uri} began no run: {reason}"
                    raise TrackingError(message) from error
                print(f"waiting for MLflow at {self.tracking_uri}: {reason}", file=sys.stderr, flush=True)
                time.sleep(RETRY_SECONDS)
            else:
                return str(run.info.run_id)

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

"""The runs of a study in MLflow: a parent for the study and a run nested in it for each trial.

They are sent when all is done, each in three requests: a tracking server costs the trials no time, and what it did not take is
sent when the study is started again.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_SOURCE_NAME

from model.delivery import SENDING_ERRORS, Run, TrackingError, brief, connect
from model.study.store import Record
from model.tracking import experiment_id

_KEY = "study.trial"
_SOURCE = {MLFLOW_SOURCE_NAME: "python -m model compare"}
# As many as MLflow takes at once.
_METRICS_AT_ONCE, _RUNS_AT_ONCE = 1000, 1000


def log(directory: Path, tracking_uri: str, records: Sequence[Record], *, parameters: dict[str, Any], page: Path) -> None:
    """Send what is not there yet. Raises `TrackingError`."""
    try:
        client = connect(tracking_uri)
        experiment = experiment_id(client, tracking_uri)
        parent = _parent(client, directory, tracking_uri, experiment, parameters)
        finished = _children(client, experiment, parent)
        left = [record for record in records if record.trial.key not in finished]
        print(f"MLflow at {tracking_uri}: run {parent} has {len(finished)} runs, {len(left)} to send", flush=True)
        for record in left:
            _send(client, experiment, parent, record)
        client.log_artifact(parent, str(page))
        client.log_artifacts(parent, str(page.with_suffix("")), page.stem)
        client.set_terminated(parent)
    except SENDING_ERRORS as error:
        message = f"MLflow at {tracking_uri} did not take all runs; the same command sends the rest: {brief(error)}"
        raise TrackingError(message) from error


def _parent(client: MlflowClient, directory: Path, tracking_uri: str, experiment: str, parameters: dict[str, Any]) -> str:
    """The study's own run, begun where there is none yet on this server."""
    found = Run.find(directory)
    if found and found.tracking_uri == tracking_uri:
        return found.run_id
    run_id = str(client.create_run(experiment, run_name="study", tags=_SOURCE).info.run_id)
    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in parameters.items()])
    Run(run_id=run_id, tracking_uri=tracking_uri).save(directory)
    return run_id


def _children(client: MlflowClient, experiment: str, parent: str) -> set[str]:
    """Keys of the trials that are all there; of one that is there in part, the part is removed."""
    finished, token = set(), None
    while True:
        runs = client.search_runs(
            [experiment], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'", max_results=_RUNS_AT_ONCE, page_token=token
        )
        for run in runs:
            if run.info.status == "FINISHED":
                finished.add(run.data.tags[_KEY])
            else:
                client.delete_run(run.info.run_id)
        token = runs.token
        if not token:
            return finished


def _send(client: MlflowClient, experiment: str, parent: str, record: Record) -> None:
    trial = record.trial
    tags = {**_SOURCE, MLFLOW_PARENT_RUN_ID: parent, _KEY: trial.key, "mlflow.source.git.commit": record.git_revision}
    run = client.create_run(experiment, start_time=_ms(record.started), run_name=trial.key, tags=tags)
    params = [Param(name, str(value)) for name, value in asdict(trial).items()]
    for number, metrics in enumerate(_batches(_metrics(record))):
        client.log_batch(run.info.run_id, metrics=metrics, params=[] if number else params)
    client.set_terminated(run.info.run_id, end_time=_ms(record.ended))


def _metrics(record: Record) -> Iterator[Metric]:
    """Under the names that `fit` gives them."""
    for point in record.result.points:
        stamp = _ms(record.started + point.wall_seconds)
        for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
            yield Metric(name.replace("validation", "val"), getattr(point, name), stamp, point.step)
    if record.result.test_accuracy is not None:
        yield Metric("test_accuracy", record.result.test_accuracy, _ms(record.ended), record.result.points[-1].step)


def _batches(metrics: Iterable[Metric]) -> Iterator[list[Metric]]:
    left = list(metrics)
    for start in range(0, len(left), _METRICS_AT_ONCE):
        yield left[start : start + _METRICS_AT_ONCE]


def _ms(seconds: float) -> int:
    return round(1000 * seconds)

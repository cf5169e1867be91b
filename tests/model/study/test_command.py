"""The command, killed in the middle, started again, and asked for what it cannot do."""

import csv
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient

from model.__main__ import main
from model.delivery import Run
from model.study.plan import quick_settings
from tests.processes import ROOT, Process, run


def children(pid: int) -> set[Path]:
    """Processes that a process has started, as folders of the system's."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.add(folder)
    return found


def runs(output: Path) -> dict[str, int]:
    """When each finished run was written."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "runs").glob("[!.]*")}


def test_a_study_that_was_killed_goes_on_and_ends_with_a_page(tmp_path: Path) -> None:
    output, page = tmp_path / "study", tmp_path / "docs" / "study.md"
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    command = ["model", "compare", "--quick", "true", "--output", str(output), "--page", str(page)]
    with Process(*command, MLFLOW_TRACKING_URI=uri) as process:
        process.wait_for("learning rates: ", timeout_seconds=240)
        deadline = time.monotonic() + 240
        while len(runs(output)) < 3:
            assert process.popen.poll() is None, process.output
            assert time.monotonic() < deadline, process.output
            time.sleep(0.02)
        started = children(process.popen.pid)
        assert len(started) >= 2
        process.popen.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 30
    while any(folder.exists() for folder in started):
        assert time.monotonic() < deadline, "a process of the pool outlives its parent"
        time.sleep(0.05)
    before = runs(output)
    assert before
    assert not page.exists()

    code, log = run(*command, MLFLOW_TRACKING_URI=uri)
    assert code == 0, log
    after = runs(output)
    assert before.items() <= after.items()
    assert len(before) < len(after)
    settings = quick_settings()
    with (page.with_suffix("") / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(after)
    assert {row["method"] for row in rows} == {"gd", "sgd", "momentum", "nesterov", "rmsprop", "adam"}
    assert f"seeds 1 to {settings.seeds}" in page.read_text().replace("\n", " ")

    client, parent = MlflowClient(uri, uri), Run.find(output)
    assert parent
    experiment = client.get_run(parent.run_id).info.experiment_id
    nested = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent.run_id}'")
    assert {child.data.tags["mlflow.runName"] for child in nested} == {Path(name).stem for name in after}
    assert all(child.info.status == "FINISHED" for child in nested)
    tested = [child for child in nested if "test_accuracy" in child.data.metrics]
    assert len(tested) == sum(row["is_tested"] == "True" for row in rows)
    assert len(client.get_metric_history(tested[0].info.run_id, "val_loss")) > 1
    assert {item.path for item in client.list_artifacts(parent.run_id)} == {"study", "study.md"}

    # All is there: nothing is trained or sent again, and another study does not take its place.
    code, log = run(*command, MLFLOW_TRACKING_URI=uri)
    assert code == 0, log
    assert f"has {len(nested)} runs, 0 to send" in log
    code, log = run(*command, "--seeds", "3", MLFLOW_TRACKING_URI=uri)
    assert code == 2
    assert "holds a study of other settings (seeds 2, now 3)" in log


def test_damaged_data_are_named_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(ROOT / "data" / "mnist", data)
    (data / "train-labels-idx1-ubyte.gz").unlink()
    monkeypatch.setattr(sys, "argv", ["model", "compare", "--output", str(tmp_path / "study"), "--data_dir", str(data)])
    assert main() == 2
    assert f"{data / 'train-labels-idx1-ubyte.gz'}: missing" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1"], "seeds: expected 2 or more, got 1"),
        (["--epochs", "0"], "epochs: expected 1 or more, got 0"),
        (["--jobs", "0"], "jobs: expected 1 or more, got 0"),
        (["--seeds", "many"], "seeds"),
        (["--data_dir", "nowhere"], "nowhere"),
        (["--no_such_option", "1"], "no_such_option"),
    ],
)
def test_what_is_asked_wrongly_is_named(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["model", "compare", "--output", str(tmp_path / "study"), *arguments])
    try:
        code = main()
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "study").exists()

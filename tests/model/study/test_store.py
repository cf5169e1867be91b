"""What a killed study leaves behind, and who may go on with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.errors import ConfigError
from model.study.facts import covered
from model.study.plan import Settings, Trial
from model.study.store import Record, Store
from model.study.training import Point, Result

TRIAL = Trial(
    method="adam", learning_rate=1e-3, batch_size=128, dropout_rate=0.2, epochs=2, seed=1, evaluations=2, is_tested=True
)
POINT = Point(
    step=3, epoch=0.5, wall_seconds=1.5, processor_seconds=1, train_loss=0.5, train_accuracy=0.8, validation_loss=0.6,
    validation_accuracy=0.7,
)  # fmt: skip
RESULT = Result(points=(POINT, replace(POINT, step=6)), test_accuracy=0.75, has_diverged=False)
RECORD = Record(trial=TRIAL, result=RESULT, started=1.0, ended=3.0, git_revision="abc")


def test_a_record_is_found_again(tmp_path: Path) -> None:
    Store(tmp_path, Settings(), "digest").add(RECORD)
    again = Store(tmp_path, Settings(), "digest")
    assert again.find(TRIAL) == RECORD
    assert again.find(replace(TRIAL, seed=2)) is None


def test_a_file_that_was_being_written_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path, Settings(), "digest")
    store.add(RECORD)
    (path,) = (tmp_path / "runs").iterdir()
    path.rename(path.with_name(f".{path.name}"))
    assert store.find(TRIAL) is None
    store.add(RECORD)
    assert store.find(TRIAL) == RECORD


def test_keys_tell_trials_apart() -> None:
    changes = [
        {"method": "sgd"}, {"learning_rate": 3e-3}, {"batch_size": 1}, {"dropout_rate": 0.0}, {"epochs": 1}, {"seed": 2},
        {"evaluations": 1}, {"is_tested": False},
    ]  # fmt: skip
    keys = {replace(TRIAL, **change).key for change in changes} | {TRIAL.key}  # type: ignore[arg-type]
    assert len(keys) == len(changes) + 1


@pytest.mark.parametrize(
    ("settings", "digest", "message"),
    [(Settings(epochs=9), "digest", "epochs 10, now 9"), (Settings(), "other", "data_digest digest, now other")],
)
def test_a_study_of_other_settings_is_not_gone_on_with(tmp_path: Path, settings: Settings, digest: str, message: str) -> None:
    Store(tmp_path, Settings(), "digest")
    with pytest.raises(ConfigError, match=message):
        Store(tmp_path, settings, digest)


@pytest.mark.parametrize("name", ["seeds", "epochs", "hidden_size"])
def test_settings_out_of_range_are_named(name: str) -> None:
    wrong: dict[str, Any] = {name: 0}
    with pytest.raises(ConfigError, match=f"{name}: expected"):
        Settings(**wrong)


def test_time_that_runs_shared_is_counted_once() -> None:
    assert covered([(0, 2), (1, 3), (10, 11), (10.5, 10.7)]) == pytest.approx(4)

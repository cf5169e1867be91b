"""What a study has come to so far: a file for each finished part, so that a study that was killed goes on where it was.

``study.json`` holds the settings, ``runs/KEY.json`` a training run, ``gradients.json`` and ``memory.json`` the measurements. Each
is whole or not there: it is written beside its place and moved.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.errors import ConfigError
from model.study.plan import Settings, Trial
from model.study.training import Point, Result

_STUDY, _RUNS = "study.json", "runs"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished trial; when, in seconds since 1970, and by which commit."""

    trial: Trial
    result: Result
    started: float
    ended: float
    git_revision: str


class Store:
    """The directory of a study. Raises `ConfigError` where it is that of another one."""

    def __init__(self, directory: Path, settings: Settings, data_digest: str) -> None:
        self.directory = directory
        wanted = json.loads(json.dumps({**asdict(settings), "data_digest": data_digest}))
        found = self.read(_STUDY)
        if found is None:
            self.write(_STUDY, wanted)
        elif found != wanted:
            differences = [f"{name} {found.get(name)}, now {value}" for name, value in wanted.items() if found.get(name) != value]
            message = f"output: {directory} holds a study of other settings ({'; '.join(differences)}); choose another directory"
            raise ConfigError(message)

    def read(self, name: str) -> Any:
        """The content of a JSON file; nothing where there is none."""
        path = self.directory / name
        return json.loads(path.read_text()) if path.exists() else None

    def write(self, name: str, content: Any) -> None:
        """Write a JSON file, whole or not at all."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}")
        scratch.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        scratch.replace(path)

    def find(self, trial: Trial) -> Record | None:
        """The record of a trial that is finished."""
        content = self.read(f"{_RUNS}/{trial.key}.json")
        return None if content is None else _record(content)

    def add(self, record: Record) -> None:
        """Keep a finished trial."""
        self.write(f"{_RUNS}/{record.trial.key}.json", asdict(record))


def _record(content: Mapping[str, Any]) -> Record:
    result = content["result"]
    points = tuple(Point(**point) for point in result["points"])
    return Record(**{**content, "trial": Trial(**content["trial"]), "result": Result(**{**result, "points": points})})

"""The files in .github, as data."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.workflows.standin import ROOT

Content = dict[str, Any]

GITHUB = ROOT / ".github"
FILES = sorted((GITHUB / "workflows").iterdir())
ACTIONS = sorted(GITHUB.glob("actions/*/action.yml"))
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a workflow's job, or of an action of ours, with all that it is given.

    ``place`` says where it stands; ``environment`` is the workflow's, the job's and its own.
    """

    file: Path
    job: str
    number: int
    content: Content
    environment: Content

    @property
    def place(self) -> str:
        return f"{self.file.relative_to(GITHUB)}: {self.job}: step {self.number}"

    @property
    def script(self) -> str:
        return str(self.content.get("run", ""))

    @property
    def uses(self) -> str:
        return str(self.content.get("uses", ""))


def load(path: Path) -> Content:
    content: dict[object, Any] = yaml.safe_load(path.read_text())
    # What YAML 1.1 makes of the key `on`.
    return {"on" if key is True else str(key): value for key, value in content.items()}


def jobs() -> Iterator[tuple[Path, str, Content]]:
    for path in FILES:
        for name, job in load(path)["jobs"].items():
            yield path, name, job


def steps() -> Iterator[Step]:
    for path, name, job in jobs():
        environment = {**load(path).get("env", {}), **job.get("env", {})}
        for number, content in enumerate(job.get("steps", []), 1):
            yield Step(file=path, job=name, number=number, content=content, environment={**environment, **content.get("env", {})})
    for path in ACTIONS:
        for number, content in enumerate(load(path)["runs"]["steps"], 1):
            yield Step(file=path, job="action", number=number, content=content, environment=content.get("env", {}))


def strings(content: object) -> Iterator[str]:
    """Every string in it."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from strings(value)
    elif isinstance(content, list):
        for value in content:
            yield from strings(value)

"""A release as Helm keeps it: its history, its values, and upgrades, each of which has to be the very next revision."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from rollout.errors import RolloutError
from rollout.story import Story
from rollout.values import Path, settings

_CALL_SECONDS, _UPGRADE_SECONDS = 60, 300
# A roll-out with its pauses is to be found in the history from its beginning to its end.
_HISTORY = "50"
_ROLLED_BACK_TO = "Rollback to "


class HelmError(RolloutError):
    """Helm did not do what it was told to."""


class ConflictError(RolloutError):
    """Somebody else changed the release at the same time."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A revision of a release; ``status`` is Helm's word for it."""

    revision: int
    status: str
    description: str

    @property
    def is_pending(self) -> bool:
        """Whether a Helm works on it, or died doing so."""
        return self.status.startswith("pending-")


class Release:
    """Release ``name`` of the chart at ``chart``; ``uninterrupted`` surrounds what no signal may cut short."""

    def __init__(self, name: str, namespace: str, chart: str, *, uninterrupted: AbstractContextManager[object]) -> None:
        helm = shutil.which("helm")
        if not helm:
            message = "helm: not found on PATH; it makes every change of a roll-out"
            raise RolloutError(message)
        self.name, self.namespace = name, namespace
        self._chart, self._helm, self._uninterrupted = chart, helm, uninterrupted

    def history(self) -> list[Entry]:
        """All revisions that Helm remembers, oldest first. Raises `HelmError`, also where there is no such release."""
        found = json.loads(self._run("history", self.name, "--output", "json", "--max", _HISTORY))
        return [Entry(revision=item["revision"], status=item["status"], description=item["description"]) for item in found]

    def values(self, revision: int, *, defaults: bool = False) -> dict[str, Any]:
        """What the user gave for a revision, and with ``defaults`` what the chart has for all else."""
        more = ["--all"] if defaults else []
        found = self._run("get", "values", self.name, "--revision", str(revision), "--output", "json", *more)
        return json.loads(found) or {}

    def upgrade(self, wanted: Mapping[Path, Any], story: Story, *, after: int) -> int:
        """Make the revision behind ``after``. Raises `ConflictError` where another came between, `HelmError` where Helm fails."""
        newest = self.history()[-1].revision
        if newest != after:
            message = f"release {self.name}: revision {newest} is there, expected {after}: somebody else upgraded it"
            raise ConflictError(message)
        words = ["--reset-then-reuse-values", "--history-max", _HISTORY, "--description", str(story), *settings(wanted)]
        said = json.loads(self._change("upgrade", self.name, self._chart, "--output", "json", *words))
        if said["version"] != after + 1:
            message = (
                f"release {self.name}: became revision {said['version']}, expected {after + 1}: somebody else upgraded it too"
            )
            raise ConflictError(message)
        return int(said["version"])

    def put_back(self, revision: int) -> None:
        """Make the cluster what it was at an older revision, after an upgrade that failed half-way."""
        self._change("rollback", self.name, str(revision), "--history-max", _HISTORY)

    def _change(self, *arguments: str) -> str:
        with self._uninterrupted:
            return self._run(*arguments, seconds=_UPGRADE_SECONDS)

    def _run(self, *arguments: str, seconds: int = _CALL_SECONDS) -> str:
        command = [self._helm, *arguments, "--namespace", self.namespace]
        # In a session of its own, so that Ctrl-C stops the roll-out, and never Helm in the middle of an upgrade.
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            message = f"helm {arguments[0]} did not end within {seconds} s"
            raise HelmError(message) from None
        if done.returncode:
            message = f"helm {arguments[0]} {self.name} in namespace {self.namespace}: {_brief(done.stderr)}"
            raise HelmError(message)
        return done.stdout


def deployed(history: list[Entry]) -> Entry | None:
    """The revision that the cluster was given last with success."""
    return next((entry for entry in reversed(history) if entry.status == "deployed"), None)


def story_of(entry: Entry, history: list[Entry]) -> Story | None:
    """What a revision was for; where Helm put an older one back, what that one was for."""
    seen: set[int] = set()
    while entry.description.startswith(_ROLLED_BACK_TO) and entry.revision not in seen:
        seen.add(entry.revision)
        target = entry.description.removeprefix(_ROLLED_BACK_TO)
        found = next((older for older in history if str(older.revision) == target), None)
        if not found:
            return None
        entry = found
    return Story.parse(entry.description)


def _brief(text: str) -> str:
    """What Helm said, in one line."""
    lines = [line.strip().removeprefix("Error: ") for line in text.splitlines() if line.strip() and "level=" not in line]
    return " ".join(lines)[-600:] or "failed without a word"

"""Where a release is: Helm's history and values, the cluster's objects and the registry's alias, read into a `Place`."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rollout import values as release_values
from rollout.cluster import View
from rollout.errors import RolloutError
from rollout.journey import Place
from rollout.release import Entry, HelmError, deployed, story_of
from rollout.story import Stage, Story

# A container that ends is started again, and a revision whose first one ended may still become ready.
_TROUBLE_SECONDS = 15.0
# How long a Helm whose roll-out was killed may go on.
_PENDING_SECONDS = 60.0
_POLL_SECONDS = 2.0


def _is_promotion(story: Story | None, entry: Entry) -> bool:
    """Whether a revision promoted the challenger of this story."""
    told = Story.parse(entry.description)
    return bool(
        story and told and told.stage is Stage.PROMOTED and (told.version, told.baseline) == (story.version, story.baseline)
    )


class Deployment(Protocol):
    """What Helm keeps: `rollout.release.Release`."""

    name: str

    def history(self) -> list[Entry]:
        """All revisions, oldest first."""

    def values(self, revision: int, *, defaults: bool = False) -> dict[str, Any]:
        """Those of a revision."""

    def upgrade(self, wanted: Mapping[release_values.Path, Any], story: Story, *, after: int) -> int:
        """Make the next revision."""

    def put_back(self, revision: int) -> None:
        """Make the cluster what it was at an older one."""


class Objects(Protocol):
    """What the cluster has: `rollout.cluster.Cluster`."""

    def view(self, release: str) -> View:
        """The release's objects."""


class Names(Protocol):
    """Who is the champion: `rollout.versions.Versions`."""

    def champion(self, name: str) -> str:
        """The version that the alias names."""


class Locator:
    """Reads where ``release`` is; a revision that is not ready after ``ready_seconds`` is taken for one that never will be."""

    def __init__(
        self,
        release: Deployment,
        objects: Objects,
        names: Names,
        *,
        ready_seconds: float,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.release = release
        self._objects, self._names, self._say = objects, names, say
        self._ready_seconds, self._clock, self._sleep = ready_seconds, clock, sleep
        self._values: dict[int, dict[str, Any]] = {}
        self._since: dict[object, float] = {}

    def values(self, revision: int) -> dict[str, Any]:
        """What the user gave for a revision, which never changes."""
        if revision not in self._values:
            self._values[revision] = self.release.values(revision)
        return self._values[revision]

    def view(self) -> View:
        """The release's objects."""
        return self._objects.view(self.release.name)

    def locate(self) -> Place:
        """Where it is. Raises `RolloutError`."""
        history = self.release.history()
        entry, story = self._last(history)
        found = self.values(entry.revision)
        model, version = release_values.model(found)
        wanted = {"uri": release_values.uri(model, version), "mark": release_values.mark(found)}
        view, percent = self.view(), release_values.percent(found)
        is_settled = view.serves(**wanted, percent=percent)
        alias, alias_trouble = self._alias(model) if story is None or story.is_over else ("", "")
        return Place(
            revision=history[-1].revision,
            deployed=entry.revision,
            story=story,
            model=model,
            version=version,
            image=release_values.image(found),
            percent=percent,
            is_settled=is_settled,
            trouble="" if is_settled else self._trouble(history[-1].revision, view, is_current=view.is_of(**wanted)),
            alias=alias,
            alias_trouble=alias_trouble,
            was_promoted=any(_is_promotion(story, told) for told in history),
        )

    def _alias(self, model: str) -> tuple[str, str]:
        """The version that it names, or why that is not known: only who moves it has to know."""
        try:
            return self._names.champion(model), ""
        except RolloutError as error:
            return "", str(error)

    def _last(self, history: list[Entry]) -> tuple[Entry, Story | None]:
        entry = deployed(history)
        if not entry:
            message = f"release {self.release.name} was never deployed: its last revision is {history[-1].status}"
            raise RolloutError(message)
        return entry, story_of(entry, history)

    def _trouble(self, revision: int, view: View, *, is_current: bool) -> str:
        """Why the newest revision will not be ready. What is said of an older one, or said for a moment, is not counted."""
        now = self._clock()
        waited = now - self._since.setdefault(revision, now)
        if not is_current or not view.trouble:
            self._since.pop((revision, view.created), None)
            if waited <= self._ready_seconds:
                return ""
            return view.trouble or f"not there and ready with its traffic within {self._ready_seconds:g} s"
        said = now - self._since.setdefault((revision, view.created), now)
        return view.trouble if said > _TROUBLE_SECONDS else ""

    def mend(self) -> None:
        """Wait for a Helm that is still at it; what one left half-way is put back, where that was a roll-out's.

        Raises `HelmError` where it was somebody else's, who may still be at it.
        """
        history, deadline = self.release.history(), self._clock() + _PENDING_SECONDS
        while history[-1].is_pending and self._clock() < deadline:
            self._say(f"waiting for Helm, whose revision {history[-1].revision} is {history[-1].status}")
            self._sleep(_POLL_SECONDS)
            history = self.release.history()
        entry, story = self._last(history)
        newest = history[-1]
        if not newest.is_pending and newest.status != "failed":
            return
        if (story is None or story.is_over) and not (self._is_first_share(newest.revision) or self._is_back(newest, entry)):
            what = f"is still {newest.status}, and no roll-out's" if newest.is_pending else "failed"
            message = f"release {self.release.name}: revision {newest.revision} {what}: {newest.description}; mend that first"
            raise HelmError(message)
        self._say(f"Helm left revision {newest.revision} {newest.status}: putting revision {entry.revision} back")
        self.release.put_back(entry.revision)

    def _is_first_share(self, revision: int) -> bool:
        """Whether an upgrade that did not end was the beginning of a roll-out: Helm forgets what it was for."""
        return release_values.percent(self.values(revision)) == 0

    def _is_back(self, newest: Entry, entry: Entry) -> bool:
        """Whether what did not end was the putting back itself."""
        return newest.status == "pending-rollback" and self.values(newest.revision) == self.values(entry.revision)

    def repair(self) -> None:
        """After an upgrade that failed: put back what it left half-way."""
        history = self.release.history()
        entry, _ = self._last(history)
        if history[-1].revision != entry.revision:
            self.release.put_back(entry.revision)

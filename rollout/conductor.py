"""A roll-out's effects. Where the release is, is read anew before each thing that is done; nothing is remembered but evidence."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from rollout import journey, values
from rollout.cluster import EventReason
from rollout.decision import Outcome
from rollout.errors import RolloutError
from rollout.journey import Judged, Place, Wish
from rollout.judgement import Judgement
from rollout.location import Locator
from rollout.release import HelmError
from rollout.story import Stage, Story

_POLL_SECONDS = 2.0

_REASONS: dict[Outcome, EventReason] = {
    Outcome.PROMOTE: "RolloutPromoted",
    Outcome.ROLLBACK: "RolloutRolledBack",
    Outcome.INCONCLUSIVE: "RolloutHeld",
}


class Notices(Protocol):
    """Where Events go: `rollout.cluster.Cluster`."""

    def say(self, release: str, reason: EventReason, message: str) -> None:
        """Write one on the release."""


class Aliases(Protocol):
    """Where the champion is named: `rollout.versions.Versions`."""

    def move_champion(self, name: str, number: str) -> None:
        """Name another."""


@dataclass(kw_only=True)
class Conductor:
    """Takes one release the way that `rollout.journey` says.

    Args:
        locator: Tells where the release is.
        judgement: Gathers evidence and judges.
        notices: Takes Events.
        aliases: Takes the champion's name.
        wish: What the user wants.
        verify: Called before each change; raises `RolloutError` where this process may be not the only one any more.
        record: Called where a promotion that was not forced has all traffic, before the alias moves.
        say: Takes lines of progress.
        force: Why a promotion needs no verdict; empty where it does.
        sleep: Waits so many seconds.
    """

    locator: Locator
    judgement: Judgement
    notices: Notices
    aliases: Aliases
    wish: Wish
    verify: Callable[[], None]
    record: Callable[[Place, Story], None]
    say: Callable[[str], None]
    force: str = ""
    sleep: Callable[[float], None] = time.sleep
    _judged: Judged | None = None
    _awaited: str = field(default="", init=False)

    def run(self, judged: Judged | None = None) -> Outcome:
        """To the end, or as far as it goes. Raises `RolloutError` where it cannot be begun or gone on with."""
        self._judged = judged
        self.locator.mend()
        while True:
            place = self.locator.locate()
            action = journey.next_action(place, self.wish, self._judged)
            match action:
                case journey.Refuse():
                    raise RolloutError(action.sentence)
                case journey.End():
                    return self._end(action)
                case journey.Pause():
                    self.shift(place, action.story)
                    sentence = f"paused at {action.story.percent} %; the same command goes on"
                    return self._end(journey.End(outcome=Outcome.INCONCLUSIVE, sentence=sentence))
                case journey.Shift():
                    self._go_on(place, action.story)
                case journey.Record():
                    self._record(place)
                case journey.MoveAlias():
                    self._move_alias(place, action.version)
                case journey.Gather():
                    self._judge(place)
                case journey.Await():
                    self.wait(action.what)

    def wait(self, what: str) -> None:
        """A moment."""
        if what != self._awaited:
            self.say(f"waiting for {what}")
        self._awaited = what
        self.sleep(_POLL_SECONDS)

    def shift(self, place: Place, story: Story) -> None:
        """Upgrade the release. Where Helm fails half-way, the release is put back to where it was, and `RolloutError` raised."""
        self.verify()
        release = self.locator.release
        now, before = self.locator.values(place.deployed), self.locator.values(story.baseline)
        try:
            revision = release.upgrade(values.changes(story, now, before, self.wish.image), story, after=place.revision)
        except HelmError as error:
            self.locator.repair()
            message = f"{error}; release {release.name} is where it was"
            raise HelmError(message) from None
        self.say(f"revision {revision}: {story}")
        if story.stage in (Stage.SHARE, Stage.PAUSED, Stage.PUTTING_BACK):
            self._notice("RolloutStep", str(story))

    def _go_on(self, place: Place, story: Story) -> None:
        self.shift(place, story)
        if story.stage is Stage.ROLLED_BACK:
            # It may have been another process that judged.
            self._judged = Judged(outcome=Outcome.ROLLBACK, reason=story.note)

    def _judge(self, place: Place) -> None:
        story = place.story
        assert story
        if self.force and not place.trouble:
            self._judged = Judged(outcome=Outcome.PROMOTE, reason=f"forced: {self.force}", percent=story.percent)
            return
        verdict = self.judgement.judge(place, story)
        self.say(f"{verdict.outcome} ({verdict.reason}) at {story.percent} %: {verdict.sentence}")
        if verdict.more:
            self.say(f"what would settle it: {verdict.more}")
        self._judged = Judged(outcome=verdict.outcome, reason=verdict.reason, percent=story.percent)

    def _record(self, place: Place) -> None:
        story = place.story
        assert story
        if story.note:
            # There may be evidence of an earlier share that promotes; it is not why this was promoted.
            self.say(f"no promotion record: {story.note}")
        else:
            self.record(place, story)
        self._judged = Judged(outcome=Outcome.PROMOTE, reason="promoted")

    def _move_alias(self, place: Place, version: str) -> None:
        self.verify()
        self.aliases.move_champion(place.model, version)
        self.say(f"version {version} of {place.model} is the champion")

    def _end(self, end: journey.End) -> Outcome:
        self.say(end.sentence)
        self._notice(_REASONS[end.outcome], end.sentence)
        reason = self._judged.reason if self._judged else ""
        self.judgement.close(end.outcome, reason, end.sentence)
        return end.outcome

    def _notice(self, reason: EventReason, message: str) -> None:
        try:
            self.notices.say(self.locator.release.name, reason, message)
        except RolloutError as error:
            # A roll-out does not hang on it.
            self.say(f"warning: {error}")

"""The way of a roll-out: from where the cluster is, and what the evidence said there, to the next thing to do. Pure.

Where a roll-out is stands in the cluster alone: each upgrade of the release says in its description what it was for, and its
values say the rest. So a process that was killed between any two things it did is followed by one that sees what there is, and
goes on.

    share 0 -> 5 -> ... -> 100 -> promoted -> alias moved
      any of these, with a verdict against it -> putting back (share 0 of the champion's model) -> rolled back (no share)

To put back comes in two upgrades. With the first the champion's old revision has all users at once, and a new one of the same
model starts beside it; only when that is ready does the second let it have them. In one upgrade Knative would give everything to
the newest revision that is ready, which is the challenger.
"""

from dataclasses import dataclass, replace

from rollout.decision import Outcome
from rollout.story import Stage, Story

FULL = 100


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a release is.

    Args:
        revision: The newest of the release.
        deployed: The one that the cluster was given last with success.
        story: What that one was for; None where it was no roll-out.
        model: The registered model that its values name.
        version: Its version.
        image: Of the server that its values name, as `values.image` writes it.
        percent: The newest pods' share by its values; None for all.
        is_settled: Whether the cluster serves as the values say, with revisions that are ready.
        trouble: Why the newest revision is not ready and will not be.
        alias: The version that the registry calls champion; empty where it calls none so.
        alias_trouble: Why that is not known.
        was_promoted: Whether the story's challenger has been promoted in the course of it.
    """

    revision: int
    deployed: int
    story: Story | None
    model: str
    version: str
    image: str
    percent: int | None
    is_settled: bool
    trouble: str = ""
    alias: str = ""
    alias_trouble: str = ""
    was_promoted: bool = False


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user wants: ``image`` is empty where it stays, ``pause_at`` None where nobody waits."""

    version: str
    image: str = ""
    steps: tuple[int, ...] = (5, 25, 50, 100)
    pause_at: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not self.steps or list(self.steps) != sorted(set(self.steps)) or not 0 < self.steps[0] <= self.steps[-1] == FULL:
            message = f"steps: expected rising percentages that end with 100, got {','.join(map(str, self.steps))}"
            raise ValueError(message)
        if self.pause_at is not None and self.pause_at not in (0, *self.steps[:-1]):
            message = f"pause_at: expected 0 or one of the steps below 100, got {self.pause_at}"
            raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What was said of the challenger by this process, at which share."""

    outcome: Outcome
    reason: str
    percent: int | None = None


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Upgrade the release, so that it is where the story says."""

    story: Story


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Note in the release that it waits for the user, and end."""

    story: Story


@dataclass(frozen=True, kw_only=True)
class Await:
    """Look again later."""

    what: str


@dataclass(frozen=True, kw_only=True)
class Gather:
    """Gather evidence at this share, and judge."""

    percent: int


@dataclass(frozen=True, kw_only=True)
class Record:
    """Record the promotion."""


@dataclass(frozen=True, kw_only=True)
class MoveAlias:
    """Call this version champion."""

    version: str


@dataclass(frozen=True, kw_only=True)
class End:
    """Nothing is left to do."""

    outcome: Outcome
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Refuse:
    """Nothing is done, and this is why."""

    sentence: str


Action = Shift | Pause | Await | Gather | Record | MoveAlias | End | Refuse


def next_action(place: Place, wish: Wish, judged: Judged | None = None) -> Action:
    """What is to be done next."""
    story = place.story
    if story is None or story.is_over:
        return _at_rest(place, wish, judged)
    is_put_back = story.stage is Stage.PUTTING_BACK
    if story.version != wish.version or (wish.image not in ("", place.image) and not is_put_back):
        return Refuse(sentence=f"another roll-out is on, of version {story.version} with {place.image}: {story}")
    if is_put_back:
        return _putting_back(place, story)
    if judged and judged.outcome is Outcome.ROLLBACK:
        return Shift(story=replace(story, stage=Stage.PUTTING_BACK, percent=0, note=judged.reason))
    if story.stage is Stage.SELF_TEST:
        return Refuse(sentence=f"an A/A test is on, which `rollback` ends: {story}")
    return _at_share(place, story, wish, judged)


def _putting_back(place: Place, story: Story) -> Action:
    if place.is_settled:
        return Shift(story=replace(story, stage=Stage.ROLLED_BACK))
    if place.trouble:
        return Refuse(sentence=f"the champion's new revision is not ready, users are with its old one: {place.trouble}")
    return Await(what=f"a new revision of version {story.champion}")


def _at_share(place: Place, story: Story, wish: Wish, judged: Judged | None) -> Action:
    if judged and judged.percent == story.percent:
        if judged.outcome is Outcome.INCONCLUSIVE:
            return End(outcome=Outcome.INCONCLUSIVE, sentence=f"held at {story.percent} %: {judged.reason}")
        if wish.pause_at == story.percent and story.stage is Stage.SHARE:
            return Pause(story=replace(story, stage=Stage.PAUSED))
        return Shift(story=_after(story, wish, judged))
    if place.is_settled or place.trouble:
        return Gather(percent=story.percent)
    return Await(what=f"version {story.version} with {story.percent} % of the traffic")


def _after(story: Story, wish: Wish, judged: Judged) -> Story:
    """The next share, or the promotion behind the last."""
    if story.percent == FULL:
        return replace(story, stage=Stage.PROMOTED, percent=0, note=judged.reason if judged.reason.startswith("forced") else "")
    return replace(story, stage=Stage.SHARE, percent=next(step for step in wish.steps if step > story.percent))


def _at_rest(place: Place, wish: Wish, judged: Judged | None) -> Action:
    """No roll-out is on, or its end is not complete."""
    story, is_rolling_back = place.story, judged is not None and judged.outcome is Outcome.ROLLBACK
    if place.percent is not None:
        sentence = (
            f"canary.percent is {place.percent} in revision {place.revision}, and no roll-out set it: end that by hand first"
        )
        return Refuse(sentence=sentence)
    is_promoted = story is not None and story.stage is Stage.PROMOTED and story.version == place.version
    if story and judged and is_rolling_back and is_promoted:
        # Also where what was promoted is not ready any more.
        return Shift(story=replace(story, stage=Stage.PUTTING_BACK, note=judged.reason))
    if not place.is_settled:
        what = f"all traffic to go to version {place.version}"
        return Refuse(sentence=f"waited for {what}: {place.trouble}") if place.trouble else Await(what=what)
    if story and judged and is_rolling_back:
        return _rolled_back(place, story, judged)
    is_wished = story is not None and story.version == wish.version and wish.image in ("", place.image)
    if story and is_promoted and (is_wished or place.alias != story.version):
        return _promoted(place, story, judged)
    return _set_out(place, wish)


def _rolled_back(place: Place, story: Story, judged: Judged) -> Action:
    """At the end of the way back. Users come first: what the registry says is asked for when they are with the champion."""
    sentence = f"version {place.version} has all traffic: {story.note or judged.reason}"
    if story.version != place.version:
        # It moves with a promotion only.
        if place.alias_trouble and place.was_promoted:
            return Refuse(sentence=f"{sentence}; who is called champion is not known: {place.alias_trouble}")
        if place.alias == story.version:
            return MoveAlias(version=place.version)
    return End(outcome=Outcome.ROLLBACK, sentence=sentence)


def _promoted(place: Place, story: Story, judged: Judged | None) -> Action:
    """Behind the last share. What judged at one has nothing recorded yet, nor has a process that has just started."""
    if place.alias_trouble:
        return Refuse(sentence=place.alias_trouble)
    if judged is None or judged.percent is not None:
        return Record()
    if place.alias != story.version:
        return MoveAlias(version=story.version)
    return End(outcome=Outcome.PROMOTE, sentence=f"version {story.version} has all traffic, and is the champion")


def _set_out(place: Place, wish: Wish) -> Action:
    if wish.version == place.version and wish.image in ("", place.image):
        return Refuse(sentence=f"model_version: version {wish.version} is what the release serves already")
    begin = Story(version=wish.version, champion=place.version, baseline=place.revision, stage=Stage.SHARE)
    return Shift(story=begin)

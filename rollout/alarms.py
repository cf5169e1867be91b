"""The champion against itself: how often this cluster, with its noise, makes the verdict roll back what is equal."""

from dataclasses import dataclass, replace
from typing import Any

from rollout.conductor import Conductor
from rollout.decision import Outcome, Verdict
from rollout.errors import RolloutError
from rollout.journey import Judged, Place
from rollout.statistics import failure_rate
from rollout.story import Stage, Story

_ALPHA = 0.025


@dataclass(frozen=True, kw_only=True)
class Alarms:
    """What the rounds said, with a 95 % interval of the rate of false alarms: see `failure_rate`."""

    verdicts: tuple[Verdict, ...]

    @property
    def false(self) -> int:
        """How many rounds would have rolled back."""
        return sum(verdict.outcome is Outcome.ROLLBACK for verdict in self.verdicts)

    def __str__(self) -> str:
        rounds = len(self.verdicts)
        rate = failure_rate(self.false, rounds, low_alpha=_ALPHA, high_alpha=_ALPHA)
        held = sum(verdict.outcome is Outcome.INCONCLUSIVE for verdict in self.verdicts)
        return (
            f"false alarms: {self.false} of {rounds}, {100 * rate.estimate:.0f} % "
            f"({100 * rate.low:.0f} to {100 * rate.high:.0f}); held: {held}"
        )

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return {"summary": str(self), "false": self.false, "verdicts": [verdict.to_json() for verdict in self.verdicts]}


def count_alarms(conductor: Conductor, rounds: int) -> Alarms:
    """Roll the champion against itself so many times at 0 %, and put the release back. Raises `RolloutError`."""
    if rounds < 1:
        message = f"rounds: expected 1 or more, got {rounds}"
        raise RolloutError(message)
    place = _at_rest(conductor)
    story = Story(version=place.version, champion=place.version, baseline=place.revision, stage=Stage.SELF_TEST)
    conductor.wish = replace(conductor.wish, version=place.version)
    verdicts, output = [], conductor.judgement.directory
    for number in range(1, rounds + 1):
        conductor.shift(place, replace(story, note=str(number)))
        place = _settled(conductor, "a second revision of the champion's model")
        # What one round has seen, another must see for itself.
        conductor.judgement.directory = output / f"round-{number}"
        verdict = conductor.judgement.judge(place, replace(story, note=str(number)))
        conductor.say(f"round {number} of {rounds}: {verdict.outcome} ({verdict.reason}): {verdict.sentence}")
        verdicts.append(verdict)
    # The end of the test is none of a round's.
    conductor.judgement.report = None
    _put_back(conductor)
    return Alarms(verdicts=tuple(verdicts))


def _at_rest(conductor: Conductor) -> Place:
    conductor.locator.mend()
    place = _settled(conductor, "all traffic to go to one revision")
    if place.story and place.story.stage is Stage.SELF_TEST:
        conductor.say("an A/A test was interrupted: putting the release back first")
        conductor.wish = replace(conductor.wish, version=place.version)
        _put_back(conductor)
        place = _settled(conductor, "all traffic to go to one revision")
    if place.percent is not None:
        message = f"a roll-out is on: {place.story or f'canary.percent is {place.percent}'}"
        raise RolloutError(message)
    return place


def _settled(conductor: Conductor, what: str) -> Place:
    while not (place := conductor.locator.locate()).is_settled:
        if place.trouble:
            message = f"waited for {what}: {place.trouble}; `rollback` puts the release back"
            raise RolloutError(message)
        conductor.wait(what)
    return place


def _put_back(conductor: Conductor) -> None:
    conductor.run(Judged(outcome=Outcome.ROLLBACK, reason="A/A test over"))

"""Evidence and verdicts at each share of a roll-out, and the report of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rollout import values
from rollout.cluster import View
from rollout.decision import Outcome, Policy, Verdict, decide
from rollout.errors import RolloutError
from rollout.evidence import Evidence
from rollout.journey import FULL, Place
from rollout.probe import Arms, ProbeError
from rollout.report import Report, read
from rollout.story import Story

# Latency is judged at the policy's number of requests and each time it has doubled; so many times more are sent to settle it.
_DOUBLINGS = 2
_PAIRED_OPEN = ("accuracy_open", "slice_open")


class Witness(Protocol):
    """Who asks the revisions: `rollout.gathering.Gathering`."""

    def begin(self, arms: Arms) -> Evidence:
        """Bad input and mirrored requests."""

    def look(self, arms: Arms, evidence: Evidence, number: int) -> Evidence:
        """More golden images."""

    def load(self, arms: Arms, evidence: Evidence, requests: int) -> Evidence:
        """More requests."""

    def watch(self, arms: Arms | None, evidence: Evidence, seconds: float) -> Evidence:
        """A step's time with users; without arms where the champion has no pods any more."""


@dataclass(kw_only=True)
class Judgement:
    """Of one roll-out.

    Args:
        witness: Who asks.
        policy: What the challenger must show.
        view: Tells what the cluster has.
        settings: All values of the release, with the chart's defaults.
        directory: Where the report goes.
        namespace: The release's.
        release: Its name.
        gateway: Address through which both revisions are reached.
        step_seconds: How long a step with users takes.
        say: Takes lines of progress.
    """

    witness: Witness
    policy: Policy
    view: Callable[[], View]
    settings: dict[str, Any]
    directory: Path
    namespace: str
    release: str
    gateway: str
    step_seconds: float
    say: Callable[[str], None]
    report: Report | None = None

    def open(self, place: Place, story: Story) -> Report:
        """The report of this roll-out, with what an earlier process wrote of it. Raises `RolloutError`."""
        head = {
            "release": self.release,
            "namespace": self.namespace,
            "uid": self.view().uid,
            "model": place.model,
            "baseline": story.baseline,
            "champion": {"version": story.champion},
            "challenger": {"version": story.version, "image": place.image},
        }
        if not self.report or self.report.head != head or self.report.directory != self.directory:
            try:
                self.report = read(self.directory, head, self.policy)
            except ValueError as error:
                raise RolloutError(str(error)) from None
        return self.report

    def judge(self, place: Place, story: Story) -> Verdict:
        """Gather what is missing at this share and decide. Raises `RolloutError` where nobody can be judged."""
        report = self.open(place, story)
        try:
            evidence, look = self._gather(place, story.percent, report)
        except ProbeError as error:
            message = f"nobody can be judged: {error}; the release stays at {story.percent} %"
            raise RolloutError(message) from None
        verdict = decide(evidence, self.policy, look=look)
        if story.percent == FULL and not evidence.slices and verdict.outcome is Outcome.INCONCLUSIVE:
            # It got here by a verdict of a process that was killed, and the champion can no more be asked.
            verdict = replace(
                verdict,
                outcome=Outcome.PROMOTE,
                reason="not_inferior",
                sentence="judged before, by a process whose evidence is not at hand",
            )
        report.add(story.percent, look, evidence, verdict)
        return verdict

    def close(self, outcome: Outcome, reason: str, sentence: str) -> None:
        """Note how it ended, where anything was judged."""
        if self.report and self.report.steps:
            self.report.close(outcome, reason, sentence)

    def _gather(self, place: Place, percent: int, report: Report) -> tuple[Evidence, int]:
        if place.trouble:
            return Evidence(not_ready=place.trouble), 0
        arms = None if percent == FULL else self._arms(place)
        evidence, look = (report.steps[-1].evidence, report.steps[-1].look) if report.steps else (None, 0)
        if arms is None:
            # The step before was passed, or this one would not be; without its evidence there is only its verdict.
            return self.witness.watch(None, evidence or Evidence(), self.step_seconds), look
        if evidence is None:
            evidence, look = self._ask(arms)
        if decide(evidence, self.policy, look=look).outcome is not Outcome.ROLLBACK:
            evidence = self._settle(arms, evidence, look)
            if percent > 0:
                evidence = self.witness.watch(arms, evidence, self.step_seconds)
        return evidence, look

    def _ask(self, arms: Arms) -> tuple[Evidence, int]:
        """Bad input, mirrored requests, and golden images as far as they are needed."""
        evidence, look = self.witness.begin(arms), 0
        if decide(evidence, self.policy, look=look).outcome is Outcome.ROLLBACK:
            return evidence, look
        for look in range(len(self.policy.looks)):
            evidence = self.witness.look(arms, evidence, look)
            verdict = decide(evidence, self.policy, look=look)
            is_open = any(guard.reason in _PAIRED_OPEN for guard in verdict.guards)
            if verdict.outcome is Outcome.ROLLBACK or not is_open:
                break
        return evidence, look

    def _settle(self, arms: Arms, evidence: Evidence, look: int) -> Evidence:
        """Requests, as many as latency and errors need, within bounds."""
        for doubling in range(_DOUBLINGS + 1):
            missing = self.policy.latency_requests * 2**doubling - len(evidence.challenger.latencies_ms)
            if missing > 0:
                self.say(f"sending {missing:,} requests of one image to each")
                evidence = self.witness.load(arms, evidence, missing)
            verdict = decide(evidence, self.policy, look=look)
            # What only golden images can settle is not settled by requests.
            rest = [
                guard for guard in verdict.guards if guard.outcome is Outcome.INCONCLUSIVE and guard.reason not in _PAIRED_OPEN
            ]
            if verdict.outcome is Outcome.ROLLBACK or not rest:
                break
        return evidence

    def _arms(self, place: Place) -> Arms:
        view, story = self.view(), place.story
        assert story
        return Arms(
            gateway=self.gateway,
            scheme=view.scheme,
            champion_host=view.hosts.get("prev", ""),
            challenger_host=view.hosts.get("latest", ""),
            model_name=str(values.value(self.settings, ("model", "name"))),
            champion_version=story.champion,
            challenger_version=story.version,
            protocol="grpc" if values.value(self.settings, ("protocol",)) == "grpc" else "rest",
        )

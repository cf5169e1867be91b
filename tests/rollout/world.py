"""A small model of Helm, KServe, Knative and MLflow, whose every effect can be the last thing that a process does."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rollout import values as release_values
from rollout.cluster import Pods, View
from rollout.conductor import Conductor
from rollout.decision import Outcome, Policy
from rollout.errors import RolloutError
from rollout.evidence import GOLDEN, Arm, Evidence, Pairs
from rollout.journey import Judged, Place, Wish
from rollout.judgement import Judgement
from rollout.location import Locator
from rollout.probe import Arms
from rollout.release import Entry, HelmError
from rollout.story import Story

POLICY = Policy(latency_requests=100, error_rate=0.1, looks=(1000, 5000), slice_margin_points={})


class Killed(BaseException):
    """What SIGKILL looks like from inside of a test."""


def uri(version: str) -> str:
    return release_values.uri("digits", version)


def put(content: dict[str, Any], wanted: Mapping[release_values.Path, Any]) -> None:
    for path, value in wanted.items():
        at = content
        for key in path[:-1]:
            at = at.setdefault(key, {})
        at[path[-1]] = value
        if value is None:
            del at[path[-1]]


@dataclass
class World:
    """A release ``digits`` that serves version 6.

    Args:
        never_ready: Versions whose pods do not become ready.
        kill_at: After how many more effects the process dies; half an effect is one too. None for never.
        lag: How many looks at the cluster it takes to do what the values say.
    """

    never_ready: frozenset[str] = frozenset()
    kill_at: int | None = None
    lag: int = 2
    name: str = "digits"
    now: float = 0.0
    entries: list[Entry] = field(default_factory=lambda: [Entry(revision=1, status="deployed", description="Install complete")])
    given: dict[int, dict[str, Any]] = field(default_factory=lambda: {1: {"model": {"uri": uri("6")}, "image": {"tag": "1"}}})
    alias: str = "6"
    applied: dict[str, Any] = field(default_factory=dict)
    revisions: list[Pods] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    rolled_out: int = 1
    behind: int = 0
    events: list[str] = field(default_factory=list)
    seen_by_users: set[str] = field(default_factory=set)
    broken: int = 0
    is_registry_away: bool = False

    def __post_init__(self) -> None:
        self.apply(1)
        self.reconcile()

    # A process that can be killed.

    def effect(self) -> None:
        if self.kill_at is not None:
            self.kill_at -= 1
            if self.kill_at < 0:
                raise Killed

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    # Helm

    def history(self) -> list[Entry]:
        return list(self.entries)

    def values(self, revision: int, *, defaults: bool = False) -> dict[str, Any]:
        del defaults
        return copy.deepcopy(self.given[revision])

    def upgrade(self, wanted: Mapping[release_values.Path, Any], story: Story, *, after: int) -> int:
        assert self.entries[-1].revision == after
        self.effect()
        current = next(entry for entry in reversed(self.entries) if entry.status == "deployed")
        content = self.values(current.revision)
        put(content, wanted)
        return self.make(content, str(story))

    def put_back(self, revision: int) -> None:
        self.effect()
        self.make(self.values(revision), f"Rollback to {revision}", "pending-rollback")

    def make(self, content: dict[str, Any], description: str, pending: str = "pending-upgrade") -> int:
        number = self.entries[-1].revision + 1
        self.given[number] = content
        self.entries.append(Entry(revision=number, status=pending, description="Preparing"))
        self.effect()
        if self.broken:
            self.broken -= 1
            self.entries[-1] = Entry(revision=number, status="failed", description='Upgrade "digits" failed: no')
            message = "helm upgrade digits: no"
            raise HelmError(message)
        self.apply(number)
        self.effect()
        done = [
            Entry(revision=e.revision, status="superseded" if e.status == "deployed" else e.status, description=e.description)
            for e in self.entries
        ]
        self.entries[:] = [*done[:-1], Entry(revision=number, status="deployed", description=description)]
        self.effect()
        return number

    # KServe and Knative

    def apply(self, number: int) -> None:
        self.applied, self.behind = self.values(number), self.lag

    def reconcile(self) -> None:
        template = Pods(
            uri=self.applied["model"]["uri"], image=release_values.image(self.applied), mark=release_values.mark(self.applied)
        )
        if not self.revisions or self.revisions[-1] != template:
            self.revisions.append(template)
            if template.uri in {uri(version) for version in self.never_ready}:
                self.failed.add(len(self.revisions))
        latest = self.latest_ready
        if self.percent in (None, 100):
            self.rolled_out = latest if latest == len(self.revisions) else self.rolled_out
            self.seen_by_users.add(self.revisions[latest - 1].uri)
        elif self.percent:
            self.seen_by_users |= {self.revisions[latest - 1].uri, self.revisions[self.rolled_out - 1].uri}
        else:
            self.seen_by_users.add(self.revisions[self.rolled_out - 1].uri)

    @property
    def percent(self) -> int | None:
        return release_values.percent(self.applied)

    @property
    def latest_ready(self) -> int:
        return next(number for number in range(len(self.revisions), 0, -1) if number not in self.failed)

    def view(self, release: str) -> View:
        assert release == self.name
        self.behind -= 1
        if self.behind == 0:
            self.reconcile()
        newest, ready = len(self.revisions), self.latest_ready
        share = 100 if self.percent is None or self.behind > 0 else self.percent
        shares = {ready: share}
        tags = {"latest": f"r{ready}"}
        if share < 100:
            shares[self.rolled_out] = shares.get(self.rolled_out, 0) + 100 - share
            tags["prev"] = f"r{self.rolled_out}"
        pods = self.revisions[-1]
        wanted = Pods(
            uri=self.applied["model"]["uri"], image=release_values.image(self.applied), mark=release_values.mark(self.applied)
        )
        return View(
            wanted=wanted if self.behind <= 0 else pods,
            newest=pods,
            runtime_image=wanted.image,
            is_observed=True,
            created=f"r{newest}",
            newest_ready=f"r{ready}",
            rolled_out=f"r{self.rolled_out}",
            shares={f"r{number}": percent for number, percent in shares.items()},
            tags=tags,
            hosts={tag: f"{tag}-digits" for tag in tags},
            trouble="" if newest == ready else "ProgressDeadlineExceeded: no pod",
        )

    def say(self, release: str, reason: str, message: str) -> None:
        del release
        self.effect()
        self.events.append(f"{reason}: {message}")

    # MLflow

    def champion(self, name: str) -> str:
        assert name == "digits"
        if self.is_registry_away:
            message = "MLflow does not answer"
            raise RolloutError(message)
        return self.alias

    def move_champion(self, name: str, number: str) -> None:
        assert name == "digits"
        self.effect()
        self.alias = number
        self.effect()

    @property
    def is_clean(self) -> bool:
        """Whether one revision has all traffic, and Helm, KServe and the registry agree on it."""
        view = self.view(self.name)
        content = self.given[self.entries[-1].revision]
        _, version = release_values.model(content)
        wanted = view.serves(uri=uri(version), mark="", percent=None) and release_values.percent(content) is None
        return wanted and self.entries[-1].status == "deployed" and self.alias == version


@dataclass
class Questions:
    """Answers as a challenger would give, whose faults are named."""

    world: World
    fault: str = ""
    at: str = "0"
    asked: list[str] = field(default_factory=list)

    def begin(self, arms: Arms) -> Evidence:
        assert arms.champion_host == "prev-digits"
        assert arms.challenger_host == "latest-digits"
        self.world.effect()
        self.asked.append("begin")
        return Evidence(bad_input=("a broken PNG got 500",) if self.fault == "bad_input" else ())

    def look(self, arms: Arms, evidence: Evidence, number: int) -> Evidence:
        del arms
        self.asked.append(f"look {number}")
        worse, better = {"accuracy": (300, 10), "open": (230, 200)}.get(self.fault, (10, 10))
        pairs = Pairs(both_right=POLICY.looks[number] - worse - better, champion_only=worse, challenger_only=better)
        return replace(evidence, slices={GOLDEN: pairs})

    def load(self, arms: Arms, evidence: Evidence, requests: int) -> Evidence:
        del arms
        return self._ask(evidence, requests)

    def watch(self, arms: Arms | None, evidence: Evidence, seconds: float) -> Evidence:
        self.world.effect()
        self.world.sleep(seconds)
        self.asked.append(f"watch {self.world.percent}")
        # At the last share there is nobody to compare with, but users.
        found = self._ask(evidence, 100)
        return found if arms else replace(found, champion=evidence.champion)

    def _ask(self, evidence: Evidence, requests: int) -> Evidence:
        failed = requests if self.fault == "errors" and str(self.world.percent) == self.at else 0
        champion = Arm(
            latencies_ms=(*evidence.champion.latencies_ms, *[1.0] * requests), requests=evidence.champion.requests + requests
        )
        slow = 60.0 if self.fault == "latency" else 1.0
        before = evidence.challenger
        challenger = Arm(
            latencies_ms=(*before.latencies_ms, *[slow] * (requests - failed)),
            requests=before.requests + requests,
            failed=before.failed + failed,
        )
        return replace(evidence, champion=champion, challenger=challenger)


def process(
    world: World,
    directory: Path,
    wish: Wish,
    *,
    fault: str = "",
    at: str = "0",
    record: Callable[[Place, Story], None] = lambda *_: None,
    said: list[str] | None = None,
) -> Conductor:
    """A process that has just started."""
    say = (said if said is not None else []).append
    locator = Locator(world, world, world, ready_seconds=120, say=say, clock=lambda: world.now, sleep=world.sleep)
    judgement = Judgement(
        witness=Questions(world, fault, at),
        policy=POLICY,
        view=locator.view,
        settings={"model": {"name": "digits"}, "protocol": "rest"},
        directory=directory,
        namespace="chiffre",
        release="digits",
        gateway="http://127.0.0.1:1",
        step_seconds=10,
        say=say,
    )
    return Conductor(
        locator=locator,
        judgement=judgement,
        notices=world,
        aliases=world,
        wish=wish,
        verify=lambda: None,
        record=record,
        say=say,
        sleep=world.sleep,
    )


def run_killed(start: Callable[[World], Outcome], make: Callable[[], World]) -> Iterable[tuple[int, World, Outcome]]:
    """For each effect of a run: kill it there, start again, and give what came of it."""
    number = 0
    while True:
        world = make()
        world.kill_at = number
        try:
            start(world)
        except Killed:
            world.kill_at = None
        else:
            return
        yield number, world, start(world)
        number += 1


ROLL_BACK = Judged(outcome=Outcome.ROLLBACK, reason="by hand")

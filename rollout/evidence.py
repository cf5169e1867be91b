"""What is known of two revisions of a release, as a roll-out gathers and judges it: plain values that go to JSON and back.

The champion is the revision that had all traffic before, the challenger the one that wants it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

GOLDEN = "golden"


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """How both answered the same labelled images, each of which counts once.

    ``differing`` says how many got two different labels, right or wrong.
    """

    both_right: int = 0
    champion_only: int = 0
    challenger_only: int = 0
    both_wrong: int = 0
    differing: int = 0

    @property
    def count(self) -> int:
        """How many images there were."""
        return self.both_right + self.champion_only + self.challenger_only + self.both_wrong


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one revision did with the requests that both got in turns, after warm-up.

    Args:
        latencies_ms: Of each request that was answered, in the order in which they were sent, milliseconds.
        requests: How many were sent, in all of the roll-out: the probe's, the mirrored ones and users' own.
        failed: How many of those got no answer, 5xx, or gRPC's status for one.
        examples: What some of the failures said, a line each.
    """

    latencies_ms: tuple[float, ...] = ()
    requests: int = 0
    failed: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The latest time that users were watched: how many requests each got in it and failed, of those that their arms count.

    ``number`` counts these times from 1; it is 0 before the first.
    """

    number: int = 0
    champion: Arm = field(default_factory=Arm)
    challenger: Arm = field(default_factory=Arm)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All of it, at one moment of a roll-out.

    Args:
        slices: Pairs by the images' kind: ``golden``, and ``rotated``, ``noisy``, ... made from golden images.
        champion: What the champion did.
        challenger: What the challenger did.
        bad_input: What the challenger answered wrongly of requests that must be refused, a line each.
        not_ready: Why the challenger's revision did not become ready; empty where it did.
        watch: What came while users were watched the last time.
    """

    slices: Mapping[str, Pairs] = field(default_factory=dict)
    champion: Arm = field(default_factory=Arm)
    challenger: Arm = field(default_factory=Arm)
    bad_input: tuple[str, ...] = ()
    not_ready: str = ""
    watch: Watch = field(default_factory=Watch)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers."""
        content = asdict(self)
        # Records have digests of evidence from before there was such a thing.
        return content if self.watch.number else {name: part for name, part in content.items() if name != "watch"}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Evidence":
        """The reverse. Raises ValueError for what is none."""
        try:
            slices = {name: _pairs(pairs) for name, pairs in content["slices"].items()}
            arms = {name: _arm(content[name]) for name in ("champion", "challenger")}
            return cls(
                slices=slices,
                **arms,
                bad_input=tuple(content["bad_input"]),
                not_ready=str(content["not_ready"]),
                watch=_watch(content["watch"]) if "watch" in content else Watch(),
            )
        except (KeyError, TypeError, AttributeError) as error:
            message = f"this is no evidence of a roll-out: {error!r}"
            raise ValueError(message) from error


def _pairs(content: Mapping[str, Any]) -> Pairs:
    return Pairs(**{name: _whole(name, count) for name, count in content.items()})


def _watch(content: Mapping[str, Any]) -> Watch:
    arms = {name: _arm(content[name]) for name in ("champion", "challenger")}
    return Watch(number=_whole("number", content["number"]), **arms)


def _arm(content: Mapping[str, Any]) -> Arm:
    latencies = tuple(float(value) for value in content["latencies_ms"])
    if not all(math.isfinite(value) and value >= 0 for value in latencies):
        message = "latencies_ms: expected finite numbers of milliseconds"
        raise ValueError(message)
    requests, failed = (_whole(name, content[name]) for name in ("requests", "failed"))
    if failed > requests:
        message = f"failed: expected at most the {requests} requests, got {failed}"
        raise ValueError(message)
    return Arm(**{**content, "latencies_ms": latencies, "examples": tuple(content["examples"])})


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        message = f"{name}: expected a whole number, 0 or more, got {value!r}"
        raise ValueError(message)
    return value

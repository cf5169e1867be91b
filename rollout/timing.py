"""How long two revisions take to answer, at the same moments."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model.bundle import Floats
from rollout.evidence import Arm
from rollout.lanes import awake, run, turns
from rollout.revision import ENOUGH_FAILURES, Arms, FailedError, ProbeError, Revision
from rollout.wire import Request

_DEADLINE_SECONDS = 300.0


def measure(
    arms: Arms,
    images: Floats,
    *,
    requests: int,
    warm_up: int,
    seed: int = 0,
) -> tuple[Arm, Arm]:
    """Send both ``requests`` with one of ``images`` (n, 28, 28) each, after ``warm_up`` that are not timed.

    A few at a time; the two requests of a pair follow one another, which comes first is drawn. What failed is counted, of the
    warm-up too, and has no latency. After five minutes, or `ENOUGH_FAILURES`, no more is sent. Raises `ProbeError`.
    """
    return asyncio.run(_measure(arms, images, requests, warm_up, seed))


async def _measure(arms: Arms, images: Floats, requests: int, warm_up: int, seed: int) -> tuple[Arm, Arm]:
    async with awake(arms, "champion", "challenger") as revisions:
        # Both are asked in the same words, which are written before anything is timed.
        written = [revisions[0].questions.single(image) for image in images[: requests + warm_up]]
        clock = asyncio.get_running_loop().time
        timing = _Timing(
            revisions=revisions, written=written, total=requests + warm_up, clock=clock, until=clock() + _DEADLINE_SECONDS
        )
        await run(timing.ask, zip(range(requests + warm_up), turns(seed), strict=False))
        champion, challenger = (
            revision.arm(_finite(latencies[warm_up:])) for revision, latencies in zip(revisions, timing.milliseconds, strict=True)
        )
        return champion, challenger


@dataclass(kw_only=True)
class _Timing:
    """Latencies so far, by pair, of both revisions; NaN where there is none."""

    revisions: list[Revision]
    written: list[Request]
    total: int
    clock: Callable[[], float]
    until: float
    milliseconds: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.milliseconds = np.full((len(self.revisions), self.total), np.nan)

    async def ask(self, job: tuple[int, bool]) -> None:
        """Ask both the same question."""
        number, is_champion_first = job
        if self.clock() > self.until or self.revisions[1].has_failed_enough:
            return
        request = self.written[number % len(self.written)]
        for side in (0, 1) if is_champion_first else (1, 0):
            try:
                reply = await self.revisions[side].ask(request)
                self.revisions[side].read(request, reply, 1)
            except FailedError as error:
                self._check_champion(error)
            else:
                self.milliseconds[side, number] = reply.seconds * 1000

    def _check_champion(self, error: FailedError) -> None:
        champion = self.revisions[0]
        if champion.has_failed_enough:
            message = f"{champion.name} failed {ENOUGH_FAILURES} of {champion.requests} requests, the last with: {error}"
            raise ProbeError(message)


def _finite(latencies: Iterable[float]) -> tuple[float, ...]:
    """To the microsecond: the evidence has thousands of them, in text."""
    return tuple(round(float(value), 3) for value in latencies if np.isfinite(value))

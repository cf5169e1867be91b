"""How two revisions answer the same labelled images."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from model.bundle import Floats, Labels
from rollout.evidence import Arm, Pairs
from rollout.lanes import awake, run, turns
from rollout.revision import Arms, FailedError, Revision

_UNASKED, _FAILED = -1, -2


@dataclass(kw_only=True)
class _Comparison:
    """Answers so far, by image; what stays unasked counts for nobody."""

    images: Floats
    labels: Labels
    champion: Revision
    challenger: Revision
    failed: list[slice] = field(default_factory=list)
    answers: tuple[Labels, Labels] = field(init=False)

    def __post_init__(self) -> None:
        self.answers = np.full(len(self.labels), _UNASKED), np.full(len(self.labels), _UNASKED)

    async def ask(self, job: tuple[slice, bool]) -> None:
        """Ask both about some of the images."""
        where, is_champion_first = job
        if self.challenger.has_failed_enough:
            return
        for is_champion in (is_champion_first, not is_champion_first):
            await (self._ask_champion if is_champion else self._ask_challenger)(where)

    async def _ask_champion(self, where: slice) -> None:
        images = self.images[where]
        self.answers[0][where] = await self.champion.yardstick(self.champion.questions.batch(images), len(images))

    async def _ask_challenger(self, where: slice) -> None:
        images = self.images[where]
        try:
            self.answers[1][where] = await self.challenger.labels(self.challenger.questions.batch(images), len(images))
        except FailedError:
            if len(images) == 1:
                self.answers[1][where] = _FAILED
            else:
                self.failed.append(where)

    async def ask_one_by_one(self) -> None:
        """Find out which images of the failed batches it was; by themselves, since a server computes together what comes so.

        The champion is asked too: without as many requests, nobody could tell that it fails less.
        """
        for where in self.failed:
            for start in range(where.start, where.stop):
                if not self.challenger.has_failed_enough:
                    one = slice(start, start + 1)
                    await self._ask_champion(one)
                    await self._ask_challenger(one)

    def pairs(self) -> Pairs:
        """What the answers say."""
        champion, challenger = self.answers
        is_asked = (champion != _UNASKED) & (challenger != _UNASKED)
        is_champion_right, is_right = (champion == self.labels) & is_asked, (challenger == self.labels) & is_asked
        both = int((is_champion_right & is_right).sum())
        only_champion, only_challenger = int(is_champion_right.sum()) - both, int(is_right.sum()) - both
        return Pairs(
            both_right=both,
            champion_only=only_champion,
            challenger_only=only_challenger,
            both_wrong=int(is_asked.sum()) - both - only_champion - only_challenger,
            differing=int((is_asked & (challenger != _FAILED) & (champion != challenger)).sum()),
        )


def compare(
    arms: Arms,
    images: Floats,
    labels: Labels,
    *,
    batch: int = 50,
    seed: int = 0,
) -> tuple[Pairs, Arm, Arm]:
    """Ask both about ``images`` (n, 28, 28) whose ``labels`` are (n,), once each.

    A batch that the challenger fails is asked again image by image, of both, and those that fail count as wrong. All requests are
    counted; once `ENOUGH_FAILURES` of them failed no more is asked, and ``Pairs.count`` is the smaller. Raises `ProbeError`.
    """
    return asyncio.run(_compare(arms, images, labels, batch, seed))


async def _compare(arms: Arms, images: Floats, labels: Labels, batch: int, seed: int) -> tuple[Pairs, Arm, Arm]:
    async with awake(arms, "champion", "challenger") as (champion, challenger):
        comparison = _Comparison(images=np.ascontiguousarray(images), labels=labels, champion=champion, challenger=challenger)
        await run(comparison.ask, zip(_batches(len(labels), batch), turns(seed), strict=False))
        await comparison.ask_one_by_one()
        return comparison.pairs(), champion.arm(), challenger.arm()


def _batches(count: int, batch: int) -> Iterator[slice]:
    return (slice(start, min(start + batch, count)) for start in range(0, count, batch))

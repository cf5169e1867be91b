"""Questions to both revisions at the same moments, a few at a time."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

from rollout.revision import VERSION, Arms, LineageError, ProbeError, Revision, Side
from rollout.wire import NoAnswerError

Item = TypeVar("Item")

_POLL_SECONDS = 0.5
_LANES = 4
_BLOCK = 10


@asynccontextmanager
async def awake(arms: Arms, *sides: Side) -> AsyncIterator[list[Revision]]:
    """The revisions of ``sides`` once they are ready; they may be at zero pods before.

    A challenger that does not get ready has failed a request, and `Revision.is_asleep`. Raises `ProbeError` for a champion that
    does not, and where the gateway does not know a host or leads to another model.
    """
    revisions = [Revision(arms, side) for side in sides]
    try:
        await run(lambda revision: _wake(revision, arms.wake_seconds), revisions)
        yield revisions
    finally:
        for revision in revisions:
            await revision.close()


async def _wake(revision: Revision, seconds: float) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while (problem := await _why_asleep(revision)) and clock() < deadline:  # noqa: ASYNC110 -- nobody here could set an event
        await asyncio.sleep(_POLL_SECONDS)
    if isinstance(problem, ProbeError):
        raise problem
    if problem:
        what = f"{revision.name} was not ready after {seconds:g} s"
        if revision.side == "champion":
            message = f"{what}: {problem}"
            raise ProbeError(message)
        revision.requests += 1
        revision.is_asleep = True
        revision.fail(what, problem)


async def _why_asleep(revision: Revision) -> str | ProbeError:
    """Nothing where the model is ready; an error where that it is not is not its own fault."""
    try:
        reply = await revision.send(revision.questions.ready)
    except LineageError as error:
        # A gateway learns of a change a little later than the cluster does.
        return error
    except NoAnswerError as error:
        return str(error)
    if reply.kind == "refused" and VERSION not in reply.headers:
        return ProbeError(f"{revision.name}: the gateway leads nowhere by this host: {reply}")
    return "" if revision.questions.is_ready(reply) else str(reply)


async def run(work: Callable[[Item], Awaitable[None]], items: Iterable[Item]) -> None:
    """Do ``work`` for all ``items``, in order, a few at a time. Raises the first `ProbeError`, once the others have stopped."""
    left = iter(items)

    async def lane() -> None:
        for item in left:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_LANES):
                group.create_task(lane())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def turns(seed: int) -> Iterator[bool]:
    """Whether the champion is asked first, of each pair: in each block of ten half of the times, at random places."""
    # Nothing here is secret.
    shuffle = random.Random(seed).shuffle  # noqa: S311
    while True:
        block = [True, False] * (_BLOCK // 2)
        shuffle(block)
        yield from block

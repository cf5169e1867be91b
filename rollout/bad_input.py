"""What a challenger makes of bad input: it must say no, soon, and go on."""

import asyncio

from rollout.corpus import Case, grpc_cases, rest_cases
from rollout.lanes import awake
from rollout.revision import Arms, NotReadyError, Revision
from rollout.wire import LateError, NoAnswerError

_POLL_SECONDS = 0.2
# So many say enough, and each may have taken a timeout.
_ENOUGH = 5


def check_bad_input(arms: Arms) -> tuple[str, ...]:
    """A line for each of a corpus of requests to the challenger that was not answered as it must be.

    Bad ones by a 4xx, or gRPC's status for it; odd but good ones by probabilities. All within a timeout, the second time if not
    the first, and with the model ready afterwards. It ends after five lines. Raises `NotReadyError` for a challenger that does
    not wake up, and `ProbeError` where the gateway is not reachable or another model answers.
    """
    return asyncio.run(_check(arms))


async def _check(arms: Arms) -> tuple[str, ...]:
    lines: list[str] = []
    async with awake(arms, "challenger") as (challenger,):
        if challenger.is_asleep:
            raise NotReadyError(*challenger.arm().examples)
        for case in (grpc_cases if arms.protocol == "grpc" else rest_cases)(arms.model_name):
            problem = await _problem(challenger, case)
            is_ready = await _is_ready(challenger, arms.request_seconds)
            if problem and is_ready:
                # A connection that is cut once may be anybody's fault, and one line rolls back.
                problem = await _problem(challenger, case)
                is_ready = await _is_ready(challenger, arms.request_seconds)
            lines += [f"{case.name}: {problem}"] if problem else []
            if not is_ready:
                lines.append(f"{case.name}: the model was not ready in the {arms.request_seconds:g} s after it")
            if not is_ready or len(lines) >= _ENOUGH:
                break
    return tuple(lines)


async def _problem(challenger: Revision, case: Case) -> str:
    """What is wrong with the answer; empty where it is right."""
    try:
        reply = await challenger.send(case.request)
        if reply.kind == case.expected == "answered":
            challenger.questions.labels(reply, 1)
    except NoAnswerError as error:
        is_cut_off = case.expected == "refused or cut off" and not isinstance(error, LateError)
        return "" if is_cut_off else f"expected an answer, got none: {error}"
    except ValueError as error:
        return str(error)
    is_right = reply.kind == case.expected or (case.expected == "refused or cut off" and reply.kind != "answered")
    return "" if is_right else f"expected it to be {case.expected}, got {reply}"


async def _is_ready(challenger: Revision, seconds: float) -> bool:
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            reply = await challenger.send(challenger.questions.ready)
            if challenger.questions.is_ready(reply):
                return True
        except NoAnswerError:
            pass
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)

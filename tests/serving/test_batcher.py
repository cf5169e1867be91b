import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from model.bundle import Bundle, Floats
from serving.batcher import Batcher
from serving.engine import Answer, Engine
from serving.errors import Disconnected, Overloaded
from serving.identity import Identity
from serving.metrics import Metrics


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle)


@pytest.fixture
def metrics(bundle: Bundle) -> Metrics:
    return Metrics(Identity.of("digits", bundle, "onnx"), bundle)


def run(steps: Coroutine[Any, Any, None]) -> None:
    asyncio.run(steps)


def submit(batcher: Batcher, asked: Floats) -> "asyncio.Future[Answer]":
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def deliver(result: Answer | Exception) -> None:
        if isinstance(result, Disconnected):
            assert future.cancelled()
        elif isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    batcher.submit(asked, deliver, future.done)
    return future


def images(count: int, seed: int) -> Floats:
    return np.random.default_rng(seed).random((count, 28, 28)).astype(np.float32)


def test_each_gets_its_own_answer_and_those_of_one_turn_are_computed_together(engine: Engine, metrics: Metrics) -> None:
    async def steps() -> None:
        batcher = Batcher(engine, metrics)
        asked = [images(1 + seed % 5, seed) for seed in range(100)]
        answers = await asyncio.gather(*(submit(batcher, question) for question in asked))
        for question, answer in zip(asked, answers, strict=True):
            expected = engine.predict(question)
            assert np.abs(answer.probabilities - expected).max() < 1e-6
            assert answer.labels.tolist() == expected.argmax(axis=1).tolist()

    run(steps())
    exposed = metrics.expose("")[0].decode()
    assert "chiffre_batch_images_count 1.0" in exposed
    assert "chiffre_batch_images_sum 300.0" in exposed
    assert "chiffre_queue_seconds_count 100.0" in exposed


def test_a_full_queue_refuses_and_then_goes_on(engine: Engine, metrics: Metrics) -> None:
    async def steps() -> None:
        batcher = Batcher(engine, metrics, max_queued_images=10)
        waiting = [submit(batcher, images(5, 0)), submit(batcher, images(5, 1))]
        with pytest.raises(Overloaded, match="queue: expected room for 1 images, got 10 waiting"):
            submit(batcher, images(1, 2))
        await asyncio.gather(*waiting)
        # More than ever fits, but nobody else waits.
        assert len((await submit(batcher, images(20, 3))).labels) == 20

    run(steps())


def test_a_large_queue_is_answered_over_several_turns(engine: Engine, metrics: Metrics) -> None:
    async def steps() -> None:
        batcher = Batcher(engine, metrics)
        waiting = [submit(batcher, images(200, seed)) for seed in range(6)]
        await asyncio.sleep(0)
        assert [future.done() for future in waiting] == [True, True, False, False, False, False]
        await asyncio.gather(*waiting)

    run(steps())
    assert "chiffre_batch_images_count 3.0" in metrics.expose("")[0].decode()


class Counting:
    """An engine that only counts, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.seen: list[int] = []
        self.error = error

    def answer(self, asked: Floats) -> Answer:
        self.seen.append(len(asked))
        if self.error:
            raise self.error
        return Answer(np.zeros(len(asked), np.int64), np.full((len(asked), 10), 0.1, np.float32))


def test_nothing_is_computed_for_whoever_went_away(metrics: Metrics) -> None:
    engine = Counting()

    async def steps() -> None:
        batcher = Batcher(engine, metrics)  # type: ignore[arg-type]
        gone, here = submit(batcher, images(3, 0)), submit(batcher, images(2, 1))
        gone.cancel()
        await here
        submit(batcher, images(1, 0)).cancel()
        await asyncio.sleep(0.01)

    run(steps())
    assert engine.seen == [2]


def test_an_engine_that_fails_fails_all_who_wait_and_none_of_the_next(metrics: Metrics) -> None:
    engine = Counting(RuntimeError("out of memory"))

    async def steps() -> None:
        batcher = Batcher(engine, metrics)  # type: ignore[arg-type]
        results = await asyncio.gather(submit(batcher, images(1, 0)), submit(batcher, images(1, 1)), return_exceptions=True)
        assert [str(result) for result in results] == ["out of memory"] * 2
        engine.error = None
        assert (await submit(batcher, images(1, 2))).labels.tolist() == [0]

    run(steps())


def test_whoever_is_alone_is_answered_at_once_and_counted(engine: Engine, metrics: Metrics) -> None:
    async def steps() -> None:
        batcher = Batcher(engine, metrics)
        batcher.is_alone = lambda: True
        question = images(2, 0)
        waiting = batcher.answer(question)
        with pytest.raises(StopIteration) as done:
            waiting.send(None)
        assert np.array_equal(done.value.value.probabilities, engine.predict(question))
        # Whoever came before is answered first.
        before = submit(batcher, images(1, 1))
        after = await batcher.answer(images(1, 2))
        assert before.done()
        assert len(after.labels) == 1

    run(steps())
    assert "chiffre_batch_images_count 2.0" in metrics.expose("")[0].decode()

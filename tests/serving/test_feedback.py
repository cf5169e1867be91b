"""What is made of feedback: predicted again, counted by source, label and prediction, and bounded."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from model.bundle import Bundle
from model.data import MnistData
from serving import feedback
from serving.confusion import SOURCES, Confusion, Source
from serving.engine import Engine
from serving.errors import TooMuch
from serving.feedback import Bucket, Feedback, Terms
from serving.identity import Identity
from serving.labelled import MAX_INSTANCES, Labelled
from serving.metrics import Metrics


def read(confusion: Confusion, name: str, **labels: str) -> float:
    registry = CollectorRegistry()
    registry.register(confusion)
    value = registry.get_sample_value(name, labels)
    assert value is not None, f"no {name} with {labels}"
    return value


def test_labels_are_counted_beside_predictions_by_all_processes_together() -> None:
    confusion = Confusion("3", workers=2)
    labels, predicted = np.array([7, 7, 7, 0]), np.array([7, 1, 7, 0])
    for worker, source in enumerate(SOURCES):
        confusion.take_row(worker)
        confusion.count(source, labels, predicted)
        confusion.count_other_version(source, 5 + worker)
        confusion.count_limited(2)
    # A process that is replaced goes on where its predecessor was.
    confusion.take_row(0)
    confusion.count("volunteered", labels[:1], predicted[:1])
    name = "chiffre_feedback_images_total"
    for source, right in zip(SOURCES, (3, 2), strict=True):
        assert read(confusion, name, version="3", source=source, label="7", predicted="7") == right
        assert read(confusion, name, version="3", source=source, label="7", predicted="1") == 1
        assert read(confusion, name, version="3", source=source, label="1", predicted="7") == 0
        assert read(confusion, name, version="3", source=source, label="0", predicted="0") == 1
    other = "chiffre_feedback_other_version_total"
    assert [read(confusion, other, version="3", source=source) for source in SOURCES] == [5, 6]
    assert read(confusion, "chiffre_feedback_limited_total", version="3") == 4


def test_every_series_is_there_before_it_is_counted() -> None:
    families = {family.name: family for family in Confusion("3").collect()}
    sizes = {name: len(family.samples) for name, family in families.items()}
    assert sizes == {"chiffre_feedback_images": 200, "chiffre_feedback_other_version": 2, "chiffre_feedback_limited": 1}
    assert all(sample.value == 0 for family in families.values() for sample in family.samples)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the time on by so many seconds; else it stands."""
    now = [100.0]
    monkeypatch.setattr(feedback, "monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_a_bucket_holds_no_more_than_it_holds_and_says_when_there_is_enough(clock: Callable[[float], None]) -> None:
    bucket = Bucket(2, 10)
    assert bucket.take(10) == 0
    assert bucket.take(1) == 0.5
    clock(0.5)
    assert bucket.take(1) == 0
    clock(3600)
    assert bucket.take(4) == 0
    assert bucket.take(7) == 0.5


@pytest.fixture
def identity(bundle: Bundle) -> Identity:
    return Identity.of("digits", bundle, "onnx")


def labelled(mnist: MnistData, count: int, version: str, source: Source = "asked") -> Labelled:
    images, labels = mnist.split("test").arrays()
    return Labelled(images=images[:count], labels=labels[:count], model_version=version, source=source)


def test_the_model_predicts_again_and_is_counted_for_and_nothing_else_is(
    bundle: Bundle, mnist: MnistData, identity: Identity
) -> None:
    engine, metrics = Engine(bundle), Metrics(identity, bundle)
    taken = Feedback(Terms(), identity)
    metrics.include(taken.confusion)
    before = metrics.expose("")[0].decode()
    told = labelled(mnist, MAX_INSTANCES, bundle.version)
    expected = engine.answer(told.images).labels

    async def steps() -> None:
        taken.start(engine)
        answer = await taken.take(told)
        right = int((expected == told.labels).sum())
        assert answer == {"counted": MAX_INSTANCES, "correct": right, "other_version": 0, "model_version": bundle.version}

    asyncio.run(steps())
    pairs = list(zip(told.labels.tolist(), expected.tolist(), strict=True))
    for label, predicted in set(pairs):
        names = {"version": bundle.version, "source": "asked", "label": str(label), "predicted": str(predicted)}
        assert read(taken.confusion, "chiffre_feedback_images_total", **names) == pairs.count((label, predicted))
    changed = set(metrics.expose("")[0].decode().splitlines()) - set(before.splitlines())
    assert {line.partition("{")[0] for line in changed} == {"chiffre_feedback_images_total"}


class Untouched:
    """An engine that must not be asked."""

    def answer(self, images: object) -> None:
        raise AssertionError(images)


def test_another_versions_answers_are_counted_apart_and_not_predicted(
    bundle: Bundle, mnist: MnistData, identity: Identity
) -> None:
    taken = Feedback(Terms(), identity)

    async def steps() -> None:
        taken.start(Untouched())  # type: ignore[arg-type]
        answer = await taken.take(labelled(mnist, 3, f"{bundle.version}0", "volunteered"))
        assert answer == {"counted": 0, "correct": 0, "other_version": 3, "model_version": bundle.version}

    asyncio.run(steps())
    other = "chiffre_feedback_other_version_total"
    assert read(taken.confusion, other, version=bundle.version, source="volunteered") == 3
    assert read(taken.confusion, other, version=bundle.version, source="asked") == 0


def test_feedback_that_comes_too_fast_is_refused_until_it_may_come(
    bundle: Bundle, mnist: MnistData, identity: Identity, clock: Callable[[float], None]
) -> None:
    taken = Feedback(Terms(per_second=0.5), identity)
    two = labelled(mnist, 2, bundle.version)

    async def steps() -> None:
        taken.start(Engine(bundle))
        await taken.take(labelled(mnist, MAX_INSTANCES, bundle.version))
        with pytest.raises(TooMuch, match=r"^feedback: expected 0.5 images a second in each process, got 2 more$") as caught:
            await taken.take(two)
        assert (caught.value.status, caught.value.headers) == (429, {"retry-after": "4"})
        clock(4)
        assert (await taken.take(two))["counted"] == 2

    asyncio.run(steps())
    assert read(taken.confusion, "chiffre_feedback_limited_total", version=bundle.version) == 2

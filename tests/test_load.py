"""A load that can fail: it counts what is wrong, lost and refused, and does not wait for answers."""

import time

import numpy as np
import pytest

from model.bundle import Bundle
from model.data import MnistData
from model.demo import free_port
from serving.engine import Engine
from tests.load import REST, Load, Target
from tests.processes import Server


def test_right_answers_over_every_protocol_are_right(server: Server, bundle: Bundle, mnist: MnistData) -> None:
    images = mnist.split("test").images[:20].numpy()
    expected = {bundle.version: Engine(bundle).predict(images)}
    with Load(Target(url=server.url, grpc_address=server.grpc_address), images, expected, rate=100) as load:
        time.sleep(2)
    load.verify(least_requests=150, least_rate=90)
    assert load.answered_by == {bundle.version: load.sent}
    with pytest.raises(AssertionError, match="requests"):
        load.verify(least_requests=1000)


def test_other_answers_and_other_versions_are_wrong(server: Server, bundle: Bundle, mnist: MnistData) -> None:
    images = mnist.split("test").images[:20].numpy()
    target = Target(url=server.url, grpc_address=server.grpc_address)
    probabilities = Engine(bundle).predict(images)
    for expected in ({bundle.version: np.roll(probabilities, 1, axis=1)}, {"another": probabilities}):
        with Load(target, images, expected, rate=100) as load:
            time.sleep(0.5)
        assert set(load.outcomes) == {"wrong"}, load
        with pytest.raises(AssertionError, match="wrong"):
            load.verify()


def test_what_is_refused_or_answered_with_an_error_has_failed(server: Server, bundle: Bundle, mnist: MnistData) -> None:
    images = mnist.split("test").images[:2].numpy()
    expected = {bundle.version: Engine(bundle).predict(images)}
    nowhere = f"127.0.0.1:{free_port()}"
    with Load(Target(url=f"http://{nowhere}", grpc_address=nowhere), images, expected, rate=100) as load:
        load.phase = "nobody"
        time.sleep(0.5)
    assert set(load.outcomes) == {"refused"}, load
    assert " nobody: refused: v1, new connection: ConnectionRefusedError" in str(load)
    with Load(Target(url=server.url, model_name="letters"), images, expected, rate=100, protocols=REST) as load:
        time.sleep(0.5)
    assert set(load.outcomes) == {"lost"}, load
    assert "404" in load.failures[0]

"""Two pods through a restart and through zero, watched by Prometheus: nothing is lost that was scraped, and nobody is woken."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from model.bundle import Bundle
from model.data import MnistData
from tests.monitoring.prometheus import Cluster, Prometheus
from tests.processes import Server

_ASKED = "chiffre:asked:increase5m"
_BY_HAND = 'sum(increase(chiffre_requests_total{route="predict",status="200"}[5m]))'
_BURST, _EACH = 60, 40


def start(bundle: Bundle, port: str = "") -> Server:
    ports = ("--http_port", port) if port else ()
    return Server("--model_dir", str(bundle.directory), "--model_name", "digits", *ports)


def address(server: Server) -> str:
    return server.url.removeprefix("http://")


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[Prometheus, Cluster]]:
    cluster = Cluster()
    with Prometheus(tmp_path, cluster) as running:
        yield running, cluster
    cluster.close()


class Asker:
    """Images sent one by one; ``answered`` counts the answers."""

    def __init__(self, mnist: MnistData) -> None:
        self._images = mnist.split("test").images[:1000].numpy()
        self._bodies = [{"instances": [image.tolist()]} for image in self._images]
        self.answered = 0

    def ask(self, server: Server, count: int, seconds: float = 0) -> None:
        with httpx.Client(timeout=10) as client:
            for _ in range(count):
                client.post(server.predict_url, json=self._bodies[self.answered % len(self._bodies)]).raise_for_status()
                self.answered += 1
                time.sleep(seconds / count)


def test_pods_come_and_go(prometheus: tuple[Prometheus, Cluster], bundle: Bundle, mnist: MnistData) -> None:
    watch, cluster = prometheus
    asker = Asker(mnist)

    def await_all() -> None:
        watch.until(lambda: watch.value(_ASKED) > asker.answered - 0.5, f"{asker.answered} requests")

    with start(bundle) as first:
        with start(bundle) as second:
            # Before Prometheus knows the pod, as one that was started by its first requests is.
            asker.ask(first, _BURST)
            watch.watch({"digits-a": address(first), "digits-b": address(second)})
            watch.until(lambda: watch.value("sum(up)") == 3, "both are scraped")
            await_all()
            assert watch.value(_BY_HAND) < 1, "an increase does not have them"
            asker.ask(first, _EACH, 3)
            asker.ask(second, _EACH, 3)
            # What was scraped stays, whatever becomes of the pod.
            await_all()
            port = second.url.rpartition(":")[2]
        with start(bundle, port) as second:
            # A container that was started again in its pod.
            asker.ask(first, _EACH, 3)
            asker.ask(second, _EACH, 3)
            await_all()
    cluster.has_pods = False
    watch.watch({})
    watch.until(lambda: not watch.query("up{inferenceservice='digits'}"), "no targets")
    time.sleep(10)
    await_all()
    with start(bundle) as third:
        asker.ask(third, _BURST)
        watch.watch({"digits-c": address(third)})
        await_all()
    # An increase is extrapolated by half an interval at both ends.
    assert watch.value(_ASKED) < asker.answered * 1.05
    assert watch.value("chiffre:failures:increase5m") == 0
    assert not watch.broken_rules()
    fired = watch.query('count_over_time(ALERTS{alertstate="firing",alertname!="ChiffreScaleLags"}[5m])')
    assert not [sample["metric"] for sample in fired]

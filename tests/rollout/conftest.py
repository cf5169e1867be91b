"""A champion and a challenger that differ, both served."""

from collections.abc import Iterator

import pytest

from model.bundle import Bundle, Floats, Labels
from model.data import MnistData
from tests.processes import Server
from tests.rollout.arms import CHALLENGER, CHAMPION, disturb, reweigh
from tests.rollout.gateway import Gateway


@pytest.fixture(scope="session")
def bundles(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    return bundle, reweigh(bundle, tmp_path_factory.mktemp("challenger") / "made", disturb)


@pytest.fixture(scope="session")
def challenger(bundles: tuple[Bundle, Bundle]) -> Iterator[Server]:
    with Server("--model_dir", str(bundles[1].directory)) as running:
        yield running


@pytest.fixture
def gateway(server: Server, challenger: Server) -> Iterator[Gateway]:
    with Gateway({CHAMPION: server.url, CHALLENGER: challenger.url}) as running:
        yield running


@pytest.fixture(scope="session")
def questions(mnist: MnistData) -> tuple[Floats, Labels]:
    """Some golden images, the last batch of which is a smaller one."""
    images, labels = mnist.split("golden").arrays()
    return images[:330], labels[:330]

"""kserve's and Triton's own clients get the engine's answers."""

import io
import subprocess
import sys

import numpy as np
import pytest

from model.bundle import Bundle
from model.data import MnistData
from serving.engine import Engine
from tests.processes import ROOT, Server


@pytest.mark.parametrize(("name", "ways"), [("triton", 6), ("kserve", 7)])
def test_an_official_client_gets_the_engines_answers(
    server: Server, bundle: Bundle, mnist: MnistData, name: str, ways: int
) -> None:
    images = mnist.split("test").images[:5].numpy()
    stream = io.BytesIO()
    np.save(stream, images)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.integration.official_clients",
            name,
            server.url.removeprefix("http://"),
            server.grpc_address,
        ],
        input=stream.getvalue(),
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    answers = np.load(io.BytesIO(done.stdout))
    assert answers.shape == (ways, 5, 10)
    assert np.abs(answers - Engine(bundle).predict(images)).max() < 1e-5

"""The drill's models have the faults that they are said to have, in a real server."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from onnxruntime import InferenceSession, RunOptions
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from model.bundle import Bundle, Floats
from model.data import MnistData
from model.demo import free_port
from model.export import onnx_logits
from tests.drill import challengers
from tests.drill.challengers import CRASHING_SHARE, DELAY_SECONDS, fit_on_shuffled_labels, golden_accuracy
from tests.processes import Process, Server


def ask(server: Server, image: Floats) -> httpx.Response:
    return httpx.post(server.predict_url, json={"instances": [image.tolist()]}, timeout=30)


def least_seconds(servers: tuple[Server, ...], images: Floats) -> list[float]:
    """The shortest answer of each, which are asked in turns: what the machine has to do besides is not counted."""
    took: list[list[float]] = [[] for _ in servers]
    for image in images:
        for server, times in zip(servers, took, strict=True):
            begun = time.perf_counter()
            assert ask(server, image).is_success
            times.append(time.perf_counter() - begun)
    return [min(times) for times in took]


def test_the_slow_one_answers_the_same_later(bundle: Bundle, server: Server, mnist: MnistData, tmp_path: Path) -> None:
    images = mnist.split("golden").images[:40].numpy()
    slow = challengers.slow(bundle, tmp_path / "slow")
    assert np.array_equal(onnx_logits(slow.onnx_path, images), onnx_logits(bundle.onnx_path, images))
    with Server("--model_dir", str(slow.directory)) as late:
        assert ask(late, images[0]).json()["predictions"] == ask(server, images[0]).json()["predictions"]
        usual_seconds, late_seconds = least_seconds((server, late), images)
        assert late_seconds > usual_seconds + 0.6 * DELAY_SECONDS


def test_the_crashing_one_fails_where_there_is_much_ink(bundle: Bundle, server: Server, mnist: MnistData, tmp_path: Path) -> None:
    images = mnist.split("golden").images.numpy()
    by_ink = np.argsort(images.mean(axis=(1, 2)))
    crashing = challengers.crashing(bundle, tmp_path / "crashing", mnist)
    with Server("--model_dir", str(crashing.directory)) as faulty:
        most, usual = images[by_ink[-1]], images[by_ink[len(by_ink) // 2]]
        assert ask(faulty, most).status_code == 500
        assert ask(faulty, usual).json()["predictions"] == ask(server, usual).json()["predictions"]
        assert ask(faulty, np.ones_like(most)).status_code == 200
        # About so many: a golden image in four times as few, and one in four times as many, is on the other side.
        assert ask(faulty, images[by_ink[-int(len(images) * CRASHING_SHARE / 4)]]).status_code == 500
        assert ask(faulty, images[by_ink[-int(len(images) * CRASHING_SHARE * 4)]]).status_code == 200


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/models/digits/ready", timeout=1).is_success
    except httpx.TransportError:
        return False


def test_the_unready_one_never_ends_its_first_run(bundle: Bundle, mnist: MnistData, tmp_path: Path) -> None:
    images = mnist.split("golden").images[:20].numpy()
    unready = challengers.unready(bundle, tmp_path / "unready")
    session = InferenceSession(unready.onnx_path, providers=["CPUExecutionProvider"])
    options = RunOptions()
    with ThreadPoolExecutor(1) as pool:
        blank = pool.submit(session.run, ["logits"], {"images": np.zeros_like(images[:1])}, options)
        assert np.array_equal(session.run(["logits"], {"images": images})[0], onnx_logits(bundle.onnx_path, images))
        assert not blank.done()
        options.terminate = True
        with pytest.raises(Fail, match="terminate"):
            blank.result(60)
    port = free_port()
    flags = ("--http_port", str(port), "--enable_grpc", "false")
    with Process("serving", "--model_dir", str(unready.directory), *flags) as stuck:
        # Others are ready in a second.
        for _ in range(10):
            time.sleep(0.5)
            assert not is_ready(f"http://127.0.0.1:{port}")
        assert stuck.popen.poll() is None, stuck.output


def test_the_one_trained_on_shuffled_labels_knows_nothing(mnist: MnistData, tmp_path: Path) -> None:
    bundle = fit_on_shuffled_labels(tmp_path)
    accuracy = golden_accuracy(bundle, mnist)
    print(f"golden accuracy {accuracy:.2%}")
    assert accuracy < 0.3

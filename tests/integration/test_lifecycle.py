"""How a server starts, stops, refuses and survives."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from model.bundle import Bundle
from model.data import MnistData
from model.demo import free_port
from serving.engine import Engine
from tests.load import Load, Target
from tests.processes import ROOT, Process, Server

BLANK = {"instances": [[0.0] * 784]}
PREDICT = "/v1/models/digits:predict"


def statuses_while_it_stops(server: Server) -> list[int]:
    """Stop it, and ask whether it is ready until it is gone."""
    statuses = []
    server.popen.send_signal(signal.SIGTERM)
    with httpx.Client(timeout=5) as client, suppress(httpx.HTTPError):
        while True:
            statuses.append(client.get(f"{server.url}/v2/models/digits/ready").status_code)
            time.sleep(0.05)
    server.popen.wait(30)
    return statuses


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_accepted_request_is_lost_when_the_server_is_told_to_stop(bundle: Bundle, mnist: MnistData, workers: str) -> None:
    images = mnist.split("test").images[:50].numpy()
    expected = {bundle.version: Engine(bundle).predict(images)}
    with Server("--model_dir", str(bundle.directory), "--workers", workers, "--drain_seconds", "1.5") as server:
        target = Target(url=server.url, grpc_address=server.grpc_address)
        with Load(target, images, expected, rate=120) as load:
            time.sleep(2)
            statuses = statuses_while_it_stops(server)
        assert server.wait(30) == 0, server.output
    assert load.sent == load.due
    assert load.outcomes["lost"] + load.outcomes["wrong"] == 0, load
    # At 15 calls a second on the connection that stays open, it takes bad luck to meet that moment.
    assert load.outcomes["crossed"] <= 2, load
    # Two seconds before the signal and one and a half after it, at 120 a second; a busy machine is slower than that.
    assert load.outcomes["right"] > 250, load
    assert load.outcomes["refused"] > 0, "it was gone in the end"
    assert statuses
    assert set(statuses) == {503}, "readiness fails first"


def test_ctrl_c_stops_at_once(bundle: Bundle) -> None:
    with Server("--model_dir", str(bundle.directory), "--drain_seconds", "60") as server:
        httpx.post(server.predict_url, json=BLANK, timeout=10).raise_for_status()
        begun = time.monotonic()
        server.popen.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
        assert time.monotonic() - begun < 10


def test_a_second_signal_ends_the_draining(bundle: Bundle) -> None:
    with Server("--model_dir", str(bundle.directory), "--drain_seconds", "60", "--workers", "2") as server:
        server.popen.terminate()
        time.sleep(0.5)
        assert httpx.post(server.predict_url, json=BLANK, timeout=10).headers["connection"] == "close"
        server.popen.terminate()
        assert server.wait(20) == 0


def children(server: Server) -> list[int]:
    return [int(word) for word in Path(f"/proc/{server.popen.pid}/task/{server.popen.pid}/children").read_text().split()]


def test_a_worker_that_dies_is_replaced(bundle: Bundle) -> None:
    with Server("--model_dir", str(bundle.directory), "--workers", "2") as server:
        httpx.post(server.predict_url, json=BLANK, timeout=10).raise_for_status()
        # An answer is counted once it is written.
        time.sleep(0.2)
        first = children(server)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        deadline = time.monotonic() + 20
        while first[0] in children(server) or len(children(server)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(20):
            httpx.post(server.predict_url, json=BLANK, timeout=10).raise_for_status()
        text = httpx.get(f"{server.url}/metrics", timeout=10).text
        assert "chiffre_worker_restarts_total 1.0" in text
        assert 'chiffre_requests_total{protocol="v1",route="predict",status="200"} 21.0' in text, "what it counted is kept"
        assert "chiffre_requests_in_flight 1.0" in text


def answers(port: int) -> bool:
    with suppress(httpx.TransportError):
        return httpx.post(f"http://127.0.0.1:{port}{PREDICT}", json=BLANK, timeout=10).is_success
    return False


def test_a_server_outlives_the_shell_that_started_it(bundle: Bundle, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    words = f"{sys.executable} -m serving --model_dir {bundle.directory} --http_port {port} --enable_grpc false"
    command = f"{words} > {log} 2>&1 & echo $!; read _"
    shell = subprocess.Popen(["/bin/sh", "-c", command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert shell.stdout
    process = int(shell.stdout.readline())
    try:
        deadline = time.monotonic() + 30
        while not answers(port):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        shell.communicate("\n", timeout=10)
        # Its event loop looks every second.
        time.sleep(2.5)
        assert answers(port), log.read_text()
    finally:
        os.kill(process, signal.SIGINT)
        deadline = time.monotonic() + 20
        while Path(f"/proc/{process}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_workers_do_not_outlive_their_supervisor(bundle: Bundle) -> None:
    with Server("--model_dir", str(bundle.directory), "--workers", "2") as server:
        orphans = children(server)
        server.popen.kill()
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{process}").exists() for process in orphans):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("name", ["bundle.json", "model.onnx"])
def test_a_bundle_that_cannot_be_served_ends_the_process_with_the_reason(bundle: Bundle, tmp_path: Path, name: str) -> None:
    directory = tmp_path / "bundle"
    shutil.copytree(bundle.directory, directory)
    (directory / name).write_bytes((directory / name).read_bytes()[:-20])
    log = tmp_path / "termination-log"
    log.touch()
    with Process("serving", "--model_dir", str(directory), "--termination_log", str(log)) as process:
        assert process.wait(60) == 2
        assert name in log.read_text()
        assert log.read_text() in process.output
        assert "Traceback" not in process.output


def test_a_number_that_is_no_port_ends_the_process_with_the_reason(bundle: Bundle) -> None:
    with Process("serving", "--model_dir", str(bundle.directory), "--http_port", "99999") as process:
        assert process.wait(60) == 2
        assert "--http_port: expected a free port, got 99999" in process.output


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("flag", ["ssl_certfile", "ssl_keyfile"])
def test_a_certificate_that_is_none_ends_the_process_with_the_reason(bundle: Bundle, flag: str, workers: str) -> None:
    files = (f"--{flag}", "pyproject.toml")
    with Process("serving", "--model_dir", str(bundle.directory), "--workers", workers, *files) as process:
        assert process.wait(60) == 2
        assert "error: --ssl_certfile: expected a certificate with its key, got " in process.output
        assert "Traceback" not in process.output


@pytest.mark.parametrize("flag", ["http_port", "grpc_port"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_ends_the_process_with_the_reason(bundle: Bundle, flag: str, workers: str) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104 -- as the server binds
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = ["--model_dir", str(bundle.directory), "--workers", workers, f"--{flag}", port]
        other = ["--grpc_port", "0"] if flag == "http_port" else ["--http_port", "0"]
        with Process("serving", *arguments, *other) as process:
            assert process.wait(60) == 2
            assert f"--{flag}: expected a free port, got {port}, one that is taken" in process.output


def test_a_full_queue_is_answered_with_503_and_the_next_request_works(bundle: Bundle) -> None:
    with Server("--model_dir", str(bundle.directory), "--max_queued_images", "1", "--log_requests", "none") as server:
        statuses = asyncio.run(burst(server, 200))
        assert set(statuses) <= {200, 503}
        assert statuses[503] > 0, statuses
        answer = httpx.post(server.predict_url, json=BLANK, timeout=10)
        assert answer.status_code == 200


async def burst(server: Server, count: int) -> Counter[int]:
    """So many requests at once, each on a connection of its own."""
    body = httpx.Request("POST", server.predict_url, json=BLANK).content
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(count)]
    for _, writer in connections:
        writer.write(head + body)
    answers = [await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20) for reader, _ in connections]
    for _, writer in connections:
        writer.close()
    refused = [answer for answer in answers if b" 503 " in answer]
    assert all(b"\r\nretry-after: 1\r\n" in answer for answer in refused)
    return Counter(int(answer.split()[1]) for answer in answers)


def test_pictures_of_a_client_that_left_are_not_decoded(bundle: Bundle) -> None:
    with Server("--model_dir", str(bundle.directory), "--log_requests", "none") as server:
        port = int(server.url.rpartition(":")[2])
        # As much as one core decodes in seconds.
        body = big_picture()
        head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: {len(body)}\r\n\r\n"
        for _ in range(40):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as leaving:
                leaving.sendall(head.encode() + body)
                time.sleep(0.01)
        begun = time.monotonic()
        httpx.post(server.predict_url, content=body, headers={"content-type": "image/png"}, timeout=30).raise_for_status()
        alone = time.monotonic()
        httpx.post(server.predict_url, content=body, headers={"content-type": "image/png"}, timeout=30).raise_for_status()
        assert alone - begun < 6 * (time.monotonic() - alone) + 1, "it waited for those that left"
        text = httpx.get(f"{server.url}/metrics", timeout=10).text
        counted = re.search(r'requests_total\{protocol="v1",route="predict",status="499"\} (\d+)', text)
        assert counted
        assert int(counted[1]) > 20


def big_picture() -> bytes:
    import io  # noqa: PLC0415 -- only here

    from PIL import Image  # noqa: PLC0415 -- only here

    noise = np.random.default_rng(0).integers(0, 60, (3000, 3000), np.uint8)
    noise[1000:2000, 1400:1600] = 255
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_start_can_be_profiled(bundle: Bundle, workers: str) -> None:
    arguments = ["--model_dir", str(bundle.directory), "--workers", workers, "--http_port", "0", "--grpc_port", "0"]
    with Process("serving", *arguments, "--startup-profile") as process:
        assert process.wait(60) == 0, process.output
    phases = dict(re.findall(r"^(\w+) +(\d+) ms$", process.output, re.MULTILINE))
    assert list(phases) == ["interpreter", "imports", "bundle", "engine", "listen", "ready", "kserve"]
    parts = ["interpreter", "imports", "bundle", "engine", "listen"]
    assert abs(sum(int(phases[part]) for part in parts) - int(phases["ready"])) < 10

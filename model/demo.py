"""Serve a bundle, send it real test images, and show the answers.

python -m model.demo --bundle build/bundle          # stops by itself
python -m model.demo --bundle build/bundle --keep   # leaves the server up until Ctrl-C
"""

import argparse
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

import httpx
import numpy as np

from model.bundle import Bundle, Floats
from model.data import MnistData
from model.idx import DataError
from model.manifest import BundleError

_READY_SECONDS, _REQUEST_SECONDS, _STOP_SECONDS = 60.0, 30.0, 30.0
_SHOWN = 3
_BATCH = 250
_NAME = "digits"
_SHADES = " .:-=+*#%@"


def main() -> int:
    """Run the demo; exit code 1 where the server does not come up or answers otherwise than the bundle says, 2 without one."""
    parser = argparse.ArgumentParser(prog="python -m model.demo", description="Serve a bundle and send it real test images.")
    parser.add_argument("--bundle", type=Path, default=Path("build/bundle"), help="The bundle's directory.")
    parser.add_argument("--http_port", type=int, default=0, help="The server's port; a free one by default.")
    parser.add_argument("--keep", action="store_true", help="Leave the server up until Ctrl-C.")
    arguments = parser.parse_args()
    # The server is stopped on the way out, whichever signal asks for it, and also where a shell's background job ignores SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return _run(arguments)
    except (BundleError, DataError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, RuntimeError) else 2


def _run(arguments: argparse.Namespace) -> int:
    port = arguments.http_port or free_port()
    expected = Bundle.load(arguments.bundle).metrics["test_accuracy"]
    images, labels = MnistData().split("test").arrays()
    with serve(arguments.bundle, port) as url:
        _show(url, images[:_SHOWN], labels[:_SHOWN])
        accuracy = _accuracy(url, images, labels)
        print(f"accuracy over the {len(labels):,} test images through HTTP: {accuracy:.2%} (the bundle says {expected:.2%})")
        if arguments.keep:
            _wait(url)
    return 0 if abs(accuracy - expected) < 1 / len(labels) else 1


@contextmanager
def serve(bundle: Path, port: int) -> Iterator[str]:
    """A server of ``bundle`` while the context lasts: its prediction URL. Raises `RuntimeError` where it does not come up."""
    flags = {"--model_dir": str(bundle), "--model_name": _NAME, "--http_port": str(port), "--enable_grpc": "false"}
    command = [sys.executable, "-m", "serving", *(word for flag in flags.items() for word in flag)]
    print(f"serving: {' '.join(['python', *command[1:]])}", flush=True)
    started = time.monotonic()
    with TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        try:
            if not _is_ready(process, f"http://127.0.0.1:{port}/v2/models/{_NAME}/ready", started + _READY_SECONDS):
                said.seek(0)
                last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                message = f"the server did not become ready (exit code {process.poll()}): {last or 'it said nothing'}"
                raise RuntimeError(message)
            print(f"ready after {time.monotonic() - started:.1f} s", flush=True)
            yield f"http://127.0.0.1:{port}/v1/models/{_NAME}:predict"
        finally:
            stop(process)
            print("server stopped", flush=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server, gently if it lets us; nobody else sends it requests, so that it need not wait for them."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _is_ready(process: subprocess.Popen[bytes], url: str, deadline: float) -> bool:
    """Whether it comes up before ``deadline``."""
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=1).is_success:
                return True
        time.sleep(0.05)
    return False


def _show(url: str, images: Floats, labels: np.ndarray) -> None:
    answer = httpx.post(url, json={"instances": images.tolist()}, timeout=_REQUEST_SECONDS).raise_for_status().json()
    for image, label, prediction in zip(images, labels, answer["predictions"], strict=True):
        print()
        for row in image:
            print("    " + "".join(_SHADES[round(float(pixel) * (len(_SHADES) - 1))] * 2 for pixel in row).rstrip())
        probabilities = "  ".join(f"{digit}: {value:.4f}" for digit, value in enumerate(prediction["probabilities"]))
        print(f"    answer {prediction['label']}, label {label}, model version {answer['model_version']}\n    {probabilities}")
    print(flush=True)


def _accuracy(url: str, images: Floats, labels: np.ndarray) -> float:
    correct = 0
    with httpx.Client(timeout=_REQUEST_SECONDS) as client:
        for start in range(0, len(images), _BATCH):
            body = {"instances": images[start : start + _BATCH].tolist()}
            answers = client.post(url, json=body).raise_for_status().json()["predictions"]
            correct += sum(
                answer["label"] == label for answer, label in zip(answers, labels[start : start + _BATCH], strict=True)
            )
    return correct / len(images)


def _wait(url: str) -> None:
    print(f"the server stays up at {url} until Ctrl-C", flush=True)
    with suppress(KeyboardInterrupt):
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())

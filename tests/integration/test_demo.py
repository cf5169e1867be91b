"""What the demo says where it cannot show anything."""

import signal
from collections.abc import Iterator

import pytest

from model.bundle import Bundle
from model.demo import main


@pytest.fixture
def _signals_are_given_back() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals_are_given_back")
def test_without_a_bundle_or_a_server_it_says_why(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["demo", "--bundle", "nowhere"])
    assert main() == 2
    assert capsys.readouterr().err == (
        "error: nowhere: expected a bundle, a directory with bundle.json, model.onnx and model.ckpt; it does not exist\n"
    )
    monkeypatch.setattr("sys.argv", ["demo", "--bundle", str(bundle.directory), "--http_port", "99999"])
    assert main() == 1
    assert "(exit code 2): error: --http_port: expected a free port, got 99999" in capsys.readouterr().err

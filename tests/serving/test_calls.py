import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from serving import calls
from serving.calls import Call, CallServer

TIMEOUT_SECONDS = 10
ECHO, BAD, SLOW = "/test/Echo", "/test/Bad", "/test/Slow"


class Echo:
    """Answers with what it was sent, and keeps how many calls came together."""

    def __init__(self) -> None:
        self.together: list[int] = []
        self.cancelled = 0

    def __call__(self, asked: list[Call]) -> None:
        self.together.append(len(asked))
        for call in asked:
            self.cancelled += call.is_cancelled
            if call.method == BAD:
                raise ValueError(call.method)
            if call.method == SLOW:
                time.sleep(0.5)
            call.answer(call.message or b"empty", [("x-method", call.method)])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def server(echo: Echo, address: str) -> Iterator[CallServer]:
    server = CallServer(echo, (ECHO, BAD, SLOW), address, [])
    server.start()
    yield server
    assert server.stop(0).wait(TIMEOUT_SECONDS)


@pytest.fixture
def channel(server: CallServer, address: str) -> Iterator[grpc.Channel]:
    del server
    with grpc.insecure_channel(address) as channel:
        yield channel


def ask(channel: grpc.Channel, message: bytes = b"hello", method: str = ECHO) -> bytes:
    answer: bytes = channel.unary_unary(method)(message, timeout=TIMEOUT_SECONDS)
    return answer


def ask_without_a_message(channel: grpc.Channel, released: threading.Event) -> grpc.Future:
    def nothing() -> Iterator[bytes]:
        released.wait(TIMEOUT_SECONDS)
        yield from ()

    return channel.stream_unary(ECHO).future(nothing(), timeout=TIMEOUT_SECONDS)


def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(200):
        if holds():
            return
        time.sleep(0.02)
    pytest.fail("it did not come to hold")


def test_each_gets_its_own_answer_and_those_that_came_meanwhile_are_handled_together(channel: grpc.Channel, echo: Echo) -> None:
    slow = channel.unary_unary(SLOW).future(b"first", timeout=TIMEOUT_SECONDS)
    eventually(lambda: len(echo.together) == 1)
    with ThreadPoolExecutor(100) as threads:
        asked = [b"%d" % number for number in range(100)]
        assert list(threads.map(lambda message: ask(channel, message), asked)) == asked
    assert slow.result() == b"first"
    assert max(echo.together) > 1
    assert sum(echo.together) == 101


def test_trailing_metadata_and_empty_messages_arrive(channel: grpc.Channel) -> None:
    answer, call = channel.unary_unary(ECHO).with_call(b"", timeout=TIMEOUT_SECONDS)
    assert answer == b"empty"
    assert ("x-method", ECHO) in [tuple(pair) for pair in call.trailing_metadata()]


def test_other_methods_are_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, method="/test/Other")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == f"method: expected one of {ECHO}, {BAD}, {SLOW}"


def test_a_handler_that_fails_is_heard_of_and_others_are_answered(
    channel: grpc.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, method=BAD)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error"
    assert "ValueError" in caplog.text
    assert ask(channel) == b"hello"


def test_a_call_without_a_message_is_refused(channel: grpc.Channel) -> None:
    released = threading.Event()
    released.set()
    silent = ask_without_a_message(channel, released)
    assert silent.exception().code() is grpc.StatusCode.UNIMPLEMENTED
    assert silent.exception().details() == "message: expected one, got none"


def test_those_who_send_nothing_hold_up_nobody_for_long(
    channel: grpc.Channel, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_MESSAGE_SECONDS", 0.2)
    released = threading.Event()
    silent = [ask_without_a_message(channel, released) for _ in range(calls._MAX_MESSAGES + 5)]  # noqa: SLF001 -- the limit
    with grpc.insecure_channel(address) as other:
        assert ask(other) == b"hello"
    refused = {call.exception().code() for call in silent}
    assert refused == {grpc.StatusCode.DEADLINE_EXCEEDED}
    released.set()


def test_clients_that_go_away_leave_nothing_behind(channel: grpc.Channel, server: CallServer) -> None:
    released = threading.Event()
    silent = [ask_without_a_message(channel, released) for _ in range(calls._MAX_MESSAGES + 5)]  # noqa: SLF001 -- the limit
    slow = channel.unary_unary(SLOW).future(b"", timeout=TIMEOUT_SECONDS)
    time.sleep(0.1)
    for call in (*silent, slow):
        call.cancel()
    released.set()
    assert ask(channel) == b"hello"
    eventually(lambda: not (server._calls or server._messages or server._waiting))  # noqa: SLF001 -- what would leak


def test_too_many_that_wait_are_refused(channel: grpc.Channel, server: CallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_MAX_WAITING", 3)
    monkeypatch.setattr(calls, "_MAX_MESSAGES", 2)
    released = threading.Event()
    silent = [ask_without_a_message(channel, released) for _ in range(5)]
    eventually(lambda: len(server._waiting) == 3)  # noqa: SLF001 -- those five have come
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in silent:
        call.cancel()
    released.set()


def test_stopping_answers_what_has_come_and_nothing_else(channel: grpc.Channel, server: CallServer, echo: Echo) -> None:
    slow = channel.unary_unary(SLOW).future(b"first", timeout=TIMEOUT_SECONDS)
    eventually(lambda: len(echo.together) == 1)
    stopped = server.stop(5)
    assert slow.result() == b"first"
    assert stopped.wait(2)
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_stopping_waits_for_nobody_longer_than_its_grace(channel: grpc.Channel, server: CallServer) -> None:
    released = threading.Event()
    silent = ask_without_a_message(channel, released)
    eventually(lambda: bool(server._messages))  # noqa: SLF001 -- it has come
    started = time.monotonic()
    assert server.stop(0.3).wait(TIMEOUT_SECONDS)
    assert 0.2 < time.monotonic() - started < 2
    assert silent.exception().code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    released.set()


def test_a_port_that_is_taken_is_said(server: CallServer, address: str, echo: Echo) -> None:
    del server
    with pytest.raises(RuntimeError, match=f"cannot listen at {address}"):
        CallServer(echo, (ECHO,), address, [("grpc.so_reuseport", 0)])

"""Answers as servers and gateways write them, and what is no answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rollout.wire import LateError, NoAnswerError, Reply, Request, Rest, UnreachableError
from tests.integration.certificates import write_certificates

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ASKED = Request(path="/", body=b"seven", headers={"x-shadow": "1"})


@asynccontextmanager
async def served(handle: Handler) -> AsyncIterator[Rest]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    rest = Rest(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "digits.localhost")
    try:
        yield rest
    finally:
        await rest.close()
        server.close()


def answering(*answers: bytes, seen: list[bytes] | None = None) -> Handler:
    """One answer for each request of a connection, which then ends."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for answer in answers:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(5)
                if seen is not None:
                    seen.append(head)
                writer.write(answer)
            await writer.drain()
        finally:
            writer.close()

    return handle


def ask(handle: Handler, *, times: int = 1, timeout_seconds: float = 10.0) -> list[Reply]:
    async def asking() -> list[Reply]:
        async with served(handle) as rest:
            return [await rest.ask(ASKED, timeout_seconds) for _ in range(times)]

    return asyncio.run(asking())


WHOLE = b"HTTP/1.1 200 OK\r\nX-Model-Version: 6\r\nContent-Length: 4\r\n\r\nfour"


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        b"HTTP/1.1 200 OK\r\nx-model-version:6\r\n\r\nfour",
        b"HTTP/1.1 200 OK\r\nx-model-version: 6\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfou\r\n1;a=b\r\nr\r\n0\r\nx: y\r\n\r\n",
    ],
    ids=["length", "until the end", "chunks"],
)
def test_answers_of_every_form_are_read(answer: bytes) -> None:
    seen: list[bytes] = []
    (reply,) = ask(answering(answer, seen=seen))
    assert (reply.status, reply.body, reply.headers["x-model-version"], reply.kind) == ("200", b"four", "6", "answered")
    assert reply.seconds > 0
    assert seen[0].startswith(b"POST / HTTP/1.1\r\nhost: digits.localhost\r\ncontent-length: 5\r\nx-shadow: 1\r\n")


def test_a_connection_is_kept_as_long_as_the_server_keeps_it() -> None:
    opened = []

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(1)
        await answering(WHOLE, WHOLE, WHOLE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))(reader, writer)

    assert len(ask(count, times=5)) == 5
    assert len(opened) == 2


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\n", WHOLE[:-1], b"\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: four\r\n\r\n", b"x" * 99_999],
    ids=["nothing", "half a head", "half a body", "no status", "no length", "no HTTP"],
)
def test_what_ends_too_soon_or_is_no_answer_is_none(answer: bytes) -> None:
    with pytest.raises(NoAnswerError, match="the connection broke"):
        ask(answering(answer))


def test_a_certificate_has_to_be_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, authority = write_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))

    async def asking(host: str) -> Reply:
        server = await asyncio.start_server(answering(WHOLE), "127.0.0.1", 0, ssl=context)
        # By the host itself, as where there is no gateway.
        rest = Rest(f"https://{host}:{server.sockets[0].getsockname()[1]}", host)
        try:
            return await rest.ask(ASKED, 10.0)
        finally:
            await rest.close()
            server.close()

    assert asyncio.run(asking("127.0.0.1")).kind == "answered"
    with pytest.raises(NoAnswerError, match="certificate"):
        asyncio.run(asking("localhost"))


def test_an_answer_has_all_of_its_time_and_no_more() -> None:
    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n")
        try:
            while not writer.is_closing():
                writer.write(b".")
                await asyncio.sleep(0.02)
        finally:
            writer.close()

    with pytest.raises(LateError, match=r"no answer in 0\.3 s"):
        ask(trickle, timeout_seconds=0.3)


def test_an_address_where_nobody_listens_is_said() -> None:
    async def asking() -> None:
        async with served(answering(WHOLE)) as rest:
            pass
        await rest.ask(ASKED, 10.0)

    with pytest.raises(UnreachableError, match=r"no connection to 127\.0\.0\.1:"):
        asyncio.run(asking())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("200", "answered"), ("OK", "answered"), ("400", "refused"), ("413", "refused"), ("INVALID_ARGUMENT", "refused"),
        ("500", "failed"), ("302", "failed"), ("UNAVAILABLE", "failed"), ("INTERNAL", "failed"),
    ],
)  # fmt: skip
def test_whose_fault_it_was_is_told_by_the_status(status: str, kind: str) -> None:
    assert Reply(status=status, headers={}, body=b"", seconds=0.0).kind == kind

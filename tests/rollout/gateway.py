"""A gateway that knows servers by names, as a cluster's does: HTTP/1.1, and what it says where nobody is behind a name."""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

OnRequest = Callable[[str, str], object]

_NOWHERE = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
_DEAD = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 7\r\n\r\nno pods"


class Gateway:
    """Runs in a thread of its own while it is entered.

    ``routes`` has addresses by hosts; ``delays`` seconds that a host's answers come later; ``answers`` what it says instead of
    its server. All but requests about readiness are kept in ``heads``, in the order in which they came, and told to
    ``on_request`` before they are passed on.
    """

    def __init__(self, routes: dict[str, str]) -> None:
        self.routes, self.delays, self.answers = routes, dict[str, float](), dict[str, bytes]()
        self.heads: list[str] = []
        self.on_request: OnRequest = lambda *request: request
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 26), self._loop)
        self._server = listening.result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(await self._answer(await _read_message(reader)))
                await writer.drain()
        except (EOFError, OSError):
            pass
        finally:
            writer.close()

    async def _answer(self, message: bytes) -> bytes:
        head = message.partition(b"\r\n\r\n")[0].decode()
        host = next(line.partition(": ")[2] for line in head.splitlines() if line.lower().startswith("host:"))
        if "/ready" not in head.splitlines()[0]:
            self.heads.append(head)
            self.on_request(host, head)
        if host not in self.routes:
            return _NOWHERE
        await asyncio.sleep(self.delays.get(host, 0))
        if host in self.answers:
            return self.answers[host]
        address = urlsplit(self.routes[host])
        try:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            return _DEAD
        try:
            writer.write(message)
            return await _read_message(reader)
        except (EOFError, OSError):
            return _DEAD
        finally:
            writer.close()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line.partition(b":")[2] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + await reader.readexactly(int(lengths[0]) if lengths else 0)

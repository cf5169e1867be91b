"""HTTP/1.1 to one address in a tenth of httpx's processor time, so that a load generator leaves the machine to the server."""

import asyncio
import select
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Status, headers by names in lower case, and body."""

    status: int
    headers: dict[str, str]
    body: bytes


def post(url: str, path: str, host: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A request as it goes on the wire; ``host`` is the address' own where it is empty."""
    members = {"host": host or urlsplit(url).netloc, "content-length": str(len(body)), **headers}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in members.items()), "", ""]
    return "\r\n".join(lines).encode() + body


class Connection:
    """One connection; a request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.is_open = True

    async def ask(self, request: bytes) -> Reply:
        """The answer to ``request``. Raises `OSError`, or `EOFError` where the connection ends before the answer does."""
        self._writer.write(request)
        await self._writer.drain()
        status, _, rest = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").partition("\r\n")
        lines = (line.partition(":") for line in rest.splitlines() if line)
        headers = {name.lower(): value.strip() for name, _, value in lines}
        self.is_open = headers.get("connection", "").lower() != "close"
        # Every server asked here says how long its answers are.
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Reply(status=int(status.split()[1]), headers=headers, body=body)

    def is_usable(self) -> bool:
        """Whether the server may still answer: it did not say that it closes, and did not close."""
        poll = select.poll()
        poll.register(self._writer.get_extra_info("socket").fileno(), select.POLLIN)
        return self.is_open and not self._reader.at_eof() and not poll.poll(0)

    def close(self) -> None:
        """Close it, without waiting for the other side."""
        self._writer.close()


class Connections:
    """New connections to an address, and those that are kept from earlier requests."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname, url
        self._address = parts.hostname, parts.port or 80
        self._kept: list[Connection] = []

    async def ask(self, request: bytes, *, is_new: bool) -> Reply:
        """The answer, over a new connection or one that is kept. Raises what opening and `Connection.ask` raise."""
        connection = (None if is_new else self._take()) or Connection(*await asyncio.open_connection(*self._address))
        try:
            reply = await connection.ask(request)
        except BaseException:
            connection.close()
            raise
        if is_new or not connection.is_open:
            connection.close()
        else:
            self._kept.append(connection)
        return reply

    def _take(self) -> Connection | None:
        while self._kept:
            connection = self._kept.pop()
            if connection.is_usable():
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close those that are kept."""
        for connection in self._kept:
            connection.close()

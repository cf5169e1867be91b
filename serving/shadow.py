"""A sample of live requests, which a roll-out sends to the model that is to follow: kept in memory, shown on loopback alone.

Each process keeps its own most recent ones, in memory that all processes of a server share, so that any of them shows all. An
index says where in a ring of bytes they are. A checksum tells those that are just being written, or whose bytes were since taken
for others; so no process waits for another. Only the standard library is imported here, for whoever reads the sample.
"""

import json
import mmap
import struct
import threading
import zlib
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

# Whoever sends a request with this header asks that it is not kept: what is mirrored once is not mirrored again.
MARK = "x-shadow"
# Of REST's headers those that say how to read the body.
HEADERS = ("content-type", "inference-header-content-length")
# Knative's queue-proxy has 9090 and 9091 of the same pod.
PORT, PATH = 8082, "/samples"
MAX_BODY_BYTES = 64 * 1024
# Of a busy server a request now and then, so that the sample is not all of one moment and one client.
INTERVAL_SECONDS = 0.1

_RING_BYTES = 1 << 20
# Offset and size in the ring, and checksum.
_PLACE = struct.Struct("<III")

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class Sample:
    """The ``requests`` most recent ones of each of ``workers`` processes. Each calls `take_row` before it keeps any."""

    def __init__(self, requests: int, *, workers: int = 1) -> None:
        self._requests, self._workers = requests, workers
        self._index_bytes = requests * _PLACE.size
        self._row_bytes = self._index_bytes + _RING_BYTES
        self._memory = mmap.mmap(-1, workers * self._row_bytes)
        # By time.perf_counter: no request that came before is kept.
        self.due = 0.0
        # The event loop keeps requests, and the thread that answers gRPC.
        self._lock = threading.Lock()
        self.take_row(0)

    def take_row(self, worker: int) -> None:
        """Keep as process ``worker``, from 0; what its predecessor kept is gone."""
        self._worker, self._row = worker, worker * self._row_bytes
        self._count = self._end = 0
        self._memory[self._row : self._row + self._index_bytes] = bytes(self._index_bytes)

    def claim(self, started: float, size: int) -> bool:
        """Whether a request that came at ``started``, with a body of ``size`` bytes, is to be kept once it is answered."""
        if started < self.due or size > MAX_BODY_BYTES:
            return False
        self.due = started + INTERVAL_SECONDS
        return True

    def keep(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Keep a request that was answered well; in any thread."""
        with self._lock:
            number = self._count * self._workers + self._worker
            head = json.dumps({"id": number, "path": path, "headers": headers}).encode()
            # Base64 has nothing to escape.
            content = b'%b,"body":"%b"}' % (head[:-1], b64encode(body))
            if self._end + len(content) > _RING_BYTES:
                self._end = 0
            start = self._row + self._index_bytes + self._end
            self._memory[start : start + len(content)] = content
            place = self._row + self._count % self._requests * _PLACE.size
            _PLACE.pack_into(self._memory, place, self._end, len(content), zlib.crc32(content))
            self._end += len(content)
            self._count += 1

    def expose(self) -> bytes:
        """What all processes have kept, in JSON: ``requests``, each with ``id``, ``path``, ``headers`` and ``body`` in base64."""
        rows = range(0, len(self._memory), self._row_bytes)
        return b'{"requests":[%b]}' % b",".join(content for row in rows for content in self._read(row))

    def _read(self, row: int) -> Iterator[bytes]:
        for place in range(row, row + self._index_bytes, _PLACE.size):
            offset, size, checksum = _PLACE.unpack_from(self._memory, place)
            start = row + self._index_bytes + offset
            content = self._memory[start : start + size]
            if content and zlib.crc32(content) == checksum:
                yield content


def build_app(sample: Sample) -> App:
    """An ASGI application that shows ``sample``."""

    async def answer(scope: Message, _: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        is_known = scope["path"] == PATH and scope["method"] == "GET"
        status = HTTPStatus.OK if is_known else HTTPStatus.NOT_FOUND
        body = sample.expose() if is_known else json.dumps({"error": f"path: expected GET {PATH}"}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer

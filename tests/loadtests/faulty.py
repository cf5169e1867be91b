"""A server between client and server, with the fault that a request's Host names.

python -m tests.loadtests.faulty UPSTREAM PORT
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import uvicorn

Message = dict[str, Any]
# Of each period, the first part passes and the second waits for the next period.
STALL_SECONDS = 6.0


class Faulty:
    def __init__(self, upstream: str) -> None:
        limits = httpx.Limits(max_connections=64)
        self._client = httpx.AsyncClient(base_url=upstream, timeout=30, limits=limits, trust_env=False)
        self._first: dict[str, httpx.Response] = {}
        self._last: httpx.Response | None = None
        self._count = 0

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        fault = headers.pop("host")
        answer = await self._client.post(scope["path"], content=body, headers={**headers, "accept-encoding": "identity"})
        status, found, content = await self._spoil(fault, answer, headers["content-type"])
        kept = [(name.encode(), value.encode()) for name, value in found.items() if name != "content-length"]
        length = [(b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": kept + length})
        await send({"type": "http.response.body", "body": content})

    async def _spoil(  # noqa: C901, PLR0912 -- one case for each fault
        self, fault: str, answer: httpx.Response, kind: str
    ) -> tuple[int, dict[str, str], bytes]:
        self._count += 1
        last, self._last = self._last or answer, answer
        status, headers, content = answer.status_code, dict(answer.headers), answer.content
        match fault:
            case "slow":
                await asyncio.sleep(3)
            case "hanging":
                await asyncio.sleep(60)
            case "stalling":
                phase = time.monotonic() % STALL_SECONDS
                await asyncio.sleep(STALL_SECONDS - phase if phase > STALL_SECONDS / 2 else 0)
            case "failing" if self._count % 10 == 0:
                status, content = 500, b'{"error": "by chance"}'
            case "anonymous":
                del headers["x-model-version"]
            case "cached":
                content = self._first.setdefault(kind, answer).content
            case "mixed" if self._count % 4 == 0:
                content = last.content
            case "unsure":
                content = json.dumps({"predictions": [{"label": 1, "probabilities": [0.05] * 9 + [0.5]}]}).encode()
            case "inconsistent":
                predictions = json.loads(content)["predictions"]
                predictions[0]["label"] = (predictions[0]["label"] + 1) % 10
                content = json.dumps({"predictions": predictions}).encode()
            case "short":
                content = content[: len(content) // 2]
            case "ragged" if self._count % 10 == 0:
                row = {"label": 3, "probabilities": [0.1] * 10}
                content = json.dumps({"predictions": [row, row | {"label": [1]}]}).encode()
            case "huge" if self._count % 10 == 0:
                content = json.dumps({"predictions": [{"label": 3, "probabilities": [10**400] * 10}]}).encode()
            case "deep" if self._count % 10 == 0:
                content = b'{"predictions": ' + b"[" * 100_000
            case "empty":
                content = b'{"predictions": []}'
        return status, headers, content


if __name__ == "__main__":
    uvicorn.run(Faulty(sys.argv[1]), port=int(sys.argv[2]), lifespan="off", log_level="warning", access_log=False)

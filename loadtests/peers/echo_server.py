"""The ceiling: a bare ASGI app that reads the whole body and sends it back.

python -m loadtests.peers.echo_server HTTP_PORT GRPC_PORT WORKERS
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

Message = dict[str, Any]


async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
    """Answer any request with its own body."""
    assert scope["type"] == "http", "lifespan is off"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    port, _, workers = (int(text) for text in sys.argv[1:])
    uvicorn.run(
        "loadtests.peers.echo_server:app",
        port=port,
        workers=workers,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )

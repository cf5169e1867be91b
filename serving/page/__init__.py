"""The page to draw a digit on: its files, read once, and the answers to requests for them."""

import html
from http import HTTPStatus
from pathlib import Path

from serving.exchange import Exchange

_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "server.js": "text/javascript",
    "feedback.js": "text/javascript",
    "samples.png": "image/png",
}
# The page needs nothing from elsewhere, and may be shown in a frame of a cluster's dashboard.
_POLICY = "default-src 'self'; img-src 'self' data: blob:; frame-ancestors *; base-uri 'none'"
_ALIVE = b'{"status":"alive"}'


class Page:
    """The files of the page for the model ``model_name``, at the root of the server.

    It asks about ``asked_share`` of the drawings; without that it takes no feedback.
    """

    def __init__(self, model_name: str, asked_share: float | None = None) -> None:
        feedback = "off" if asked_share is None else f"{asked_share:g}"
        self._files: dict[str, tuple[bytes, list[tuple[bytes, bytes]]]] = {}
        for name, content_type in _TYPES.items():
            content = Path(__file__).with_name(name).read_bytes()
            if name == "index.html":
                content = content.replace(b"{{model_name}}", html.escape(model_name).encode())
                content = content.replace(b"{{feedback}}", feedback.encode())
            headers = {
                "content-type": content_type,
                "content-security-policy": _POLICY,
                "x-content-type-options": "nosniff",
                # An old script must not meet a new server.
                "cache-control": "no-cache",
                "vary": "accept",
            }
            path = "/" if name == "index.html" else f"/{name}"
            self._files[path] = content, [(key.encode(), value.encode()) for key, value in headers.items()]

    @property
    def paths(self) -> list[str]:
        """Where the files are."""
        return list(self._files)

    async def answer(self, exchange: Exchange) -> None:
        """Send the file asked for; at the root, only to those who want HTML: to others it is kserve's liveness."""
        path = exchange.scope["path"]
        if path == "/" and "text/html" not in exchange.header(b"accept"):
            await exchange.answer(HTTPStatus.OK, _ALIVE)
            return
        content, headers = self._files[path]
        await exchange.answer(HTTPStatus.OK, content, headers[0][1], headers[1:])

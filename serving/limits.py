"""What stands before kserve's app: which routes are served, a limit on bodies, errors as ``{"error": "field: ..."}``."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from serving.codec import FieldError
from serving.predictor import UnknownModel

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 32 * 1024 * 1024
_BODY_TIMEOUT_SECONDS = 30.0
# A client that is cut off in the middle of sending sees a broken connection instead of the answer: so what is too much is read
# to its end and thrown away, but no longer than this.
_DISCARD_SECONDS = 0.8


# kserve has more, among them one by which anybody could unload the model.
_ROUTES = re.compile(r"/|/metrics|/v1/models(/[^/:]+(:predict)?)?|/v2/health/(live|ready)|/v2/models/[^/]+/ready")


class Gate:
    """ASGI middleware: 404 for what is not served, 413 for bodies above ``max_body_bytes``, 408 for those that do not come."""

    def __init__(self, app: App, *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.app, self.max_body_bytes = app, max_body_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not _ROUTES.fullmatch(scope["path"]):
            await _no_route(scope["path"])(scope, receive, send)
            return
        if scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        try:
            body = await self._read(receive)
        except ClientDisconnect:
            return
        except _Refused as refused:
            await _error(refused.status, str(refused), {"connection": "close"})(scope, receive, send)
        else:
            await self.app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes:
        parts, size, more = [], 0, True
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_SECONDS) as patience:
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    part, more = message.get("body", b""), message.get("more_body", False)
                    if size <= self.max_body_bytes < size + len(part):
                        patience.reschedule(asyncio.get_running_loop().time() + _DISCARD_SECONDS)
                    size += len(part)
                    if size <= self.max_body_bytes:
                        parts.append(part)
        except TimeoutError:
            if size <= self.max_body_bytes:
                text = f"body: expected all of it within {_BODY_TIMEOUT_SECONDS:g} s, got a part"
                raise _Refused(HTTPStatus.REQUEST_TIMEOUT, text) from None
        if size > self.max_body_bytes:
            text = f"body: expected at most {self.max_body_bytes:,} bytes, got more"
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
        return b"".join(parts)


class _Refused(Exception):  # noqa: N818 -- an answer, not an error
    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def install(app: FastAPI, *, max_body_bytes: int) -> None:
    """Put the limit and the error handlers on kserve's ``app``, before it is served."""
    app.add_middleware(Gate, max_body_bytes=max_body_bytes)
    app.add_exception_handler(FieldError, _invalid_field)
    app.add_exception_handler(UnknownModel, _unknown_model)
    app.add_exception_handler(HTTPException, _http_error)


async def _invalid_field(request: Request, error: Exception) -> JSONResponse:
    del request
    return _error(HTTPStatus.BAD_REQUEST, str(error))


async def _unknown_model(request: Request, error: Exception) -> JSONResponse:
    del request
    return _error(HTTPStatus.NOT_FOUND, str(error))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException), "registered for it alone"
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return _no_route(request.url.path)
        case HTTPStatus.METHOD_NOT_ALLOWED:
            # kserve's route of a model's state matches the path of its verb as well.
            allowed = "POST" if request.url.path.endswith(":predict") else (error.headers or {}).get("Allow", "another")
            text = f"method: expected {allowed}, got {request.method}"
            return _error(error.status_code, text, {"Allow": allowed})
        case _:
            text = str(error.detail)
    return _error(error.status_code, text, error.headers)


def _no_route(path: str) -> JSONResponse:
    return _error(HTTPStatus.NOT_FOUND, f"path: expected a route of the V1 protocol, got {path[:80]}")


def _error(status: int, text: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)

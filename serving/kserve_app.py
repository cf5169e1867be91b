"""kserve's own app over a service: all its routes, its data plane and its errors, behind `serving.front`.

Importing kserve takes longer than all else at the start, so that it is imported here, when it is wanted.
"""

import asyncio
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from types import ModuleType
from typing import TYPE_CHECKING, Any

from serving.errors import RequestError
from serving.exchange import App
from serving.service import Service

if TYPE_CHECKING:
    from concurrent.futures import Future

    from kserve import ModelServer
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    from serving.calls import Metadata

_ANSWER_SECONDS = 60.0

logger = logging.getLogger("serving")


def import_kserve() -> ModuleType:
    """The kserve package, with its server."""
    with _pandas_on_demand():
        importlib.import_module("kserve.model_server")

    return sys.modules["kserve"]


@contextmanager
def _pandas_on_demand() -> Iterator[None]:
    """Keep pandas out of an import: kserve names one class of it in an annotation, and no route needs it.

    It costs 70 MB and half of the import's time. Who asks the stand-in for more gets pandas itself.
    """
    if "pandas" in sys.modules:
        yield
        return
    stand_in = sys.modules["pandas"] = _Pandas("pandas")
    vars(stand_in)["DataFrame"] = "pandas.DataFrame"
    try:
        yield
    finally:
        del sys.modules["pandas"], vars(stand_in)["DataFrame"]


class _Pandas(ModuleType):
    def __getattr__(self, name: str) -> Any:
        import pandas as pd  # noqa: PLC0415 -- see above

        return getattr(pd, name)


class Mount:
    """kserve's server: made by ``build``, in a thread, when it is first wanted or `begin` is called."""

    def __init__(self, build: "Callable[[], ModelServer]") -> None:
        self._build = build
        self._server: asyncio.Future[ModelServer] | None = None

    def begin(self) -> "asyncio.Future[ModelServer]":
        """Start to make it, or give what is made."""
        if self._server is None:
            self._server = asyncio.ensure_future(asyncio.to_thread(self._build))
        return self._server

    async def app(self) -> App:
        """kserve's ASGI app."""
        await asyncio.shield(self.begin())
        app: App = import_kserve().model_server.app
        return app

    def infer(self, loop: asyncio.AbstractEventLoop) -> "Callable[[Any, Metadata], Future[Any]]":
        """kserve's ``ModelInfer``, which runs on ``loop``, for threads."""

        async def ask(request: Any, metadata: "Metadata") -> Any:
            async with asyncio.timeout(_ANSWER_SECONDS):
                server = await asyncio.shield(self.begin())
                from kserve.protocol.grpc.servicer import InferenceServicer  # noqa: PLC0415 -- it imports kserve

                return await InferenceServicer(server.dataplane, None).ModelInfer(request, _Context(metadata))

        return lambda request, metadata: asyncio.run_coroutine_threadsafe(ask(request, metadata), loop)


class _Context:
    """What kserve's ``ModelInfer`` asks of its context, as it expects it."""

    def __init__(self, metadata: "Metadata") -> None:
        self.invocation_metadata = lambda: metadata


def build_server(service: Service, ports: dict[str, int]) -> "ModelServer":
    """kserve's server with the model registered and its app complete; our own processes listen for it."""
    kserve = import_kserve()
    from fastapi.exceptions import RequestValidationError  # noqa: PLC0415 -- it comes with kserve
    from kserve.protocol.rest.server import RESTServer  # noqa: PLC0415 -- it imports kserve
    from starlette.exceptions import HTTPException  # noqa: PLC0415 -- it comes with kserve

    from serving.predictor import DigitModel, Plane  # noqa: PLC0415 -- it imports kserve

    server = kserve.ModelServer(**ports, enable_latency_logging=False)
    server.dataplane = Plane(model_registry=server.registered_models)
    server.register_model(DigitModel(service))
    app = "kserve.model_server:app"
    RESTServer(app, server.dataplane, server.model_repository_extension, server.http_port).create_application()
    kserve.model_server.app.add_exception_handler(RequestError, _refuse)
    kserve.model_server.app.add_exception_handler(HTTPException, _refuse_http)
    kserve.model_server.app.add_exception_handler(RequestValidationError, _refuse_invalid)
    return server


async def _refuse(request: "Request", error: Exception) -> "JSONResponse":
    from starlette.responses import JSONResponse  # noqa: PLC0415 -- it comes with kserve

    del request
    assert isinstance(error, RequestError), "registered for it alone"
    return JSONResponse({"error": str(error)}, error.status, error.headers)


async def _refuse_http(request: "Request", error: Any) -> "JSONResponse":
    from starlette.responses import JSONResponse  # noqa: PLC0415 -- it comes with kserve

    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        text = f"method: expected {(error.headers or {}).get('Allow', 'another')}, got {request.method}"
    else:
        text = str(error.detail)
    return JSONResponse({"error": text}, error.status_code, error.headers)


async def _refuse_invalid(request: "Request", error: Any) -> "JSONResponse":
    """What is good by our own codec, and not by kserve's types."""
    from starlette.responses import JSONResponse  # noqa: PLC0415 -- it comes with kserve

    del request
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return JSONResponse({"error": f"{field[:80]}: expected what kserve takes, got: {first['msg'][:120]}"}, HTTPStatus.BAD_REQUEST)

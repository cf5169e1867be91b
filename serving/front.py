"""The ASGI callable in front of kserve's app: it answers the hot routes itself, closes some of kserve's, hands on the rest."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import orjson

from serving import codec, tensors
from serving.errors import Disconnected, Overloaded, RequestError, UnknownModel, UnknownRoute, WrongMethod
from serving.exchange import App, Exchange, Message, Receive, Send
from serving.page import Page
from serving.service import Service

_INTERNAL = b'{"error":"internal error"}'
# Larger bodies, and pictures, are decoded in a thread, so that probes and other requests are answered meanwhile.
_THREAD_BYTES = 64 * 1024
# As clients write it; what else may be JSON is decoded in a thread too.
_JSON_TYPES = (codec.JSON_TYPE, "")
_RETURN_IMAGES = b"x-return-images"
_GET = ("GET", "HEAD")
# kserve has more routes, among them those by which anybody could load and unload models.
_KSERVE = re.compile(r"/v1/models|/v2|/v2/models")
_KSERVE_DOCS = re.compile(r"/docs|/openapi\.json")
_V1_MODEL = re.compile(r"/v1/models/([^/:]+)(:predict)?")
_V2_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/infer|/ready)?")

Handler = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True)
class Route:
    """Who answers a path, by which methods, and under which labels it is counted."""

    protocol: str
    name: str
    handler: Handler
    methods: tuple[str, ...] = _GET


class Front:
    """Answers requests of one process. ``kserve`` gives kserve's app once that is there.

    With ``is_fast`` false, predictions too are kserve's to answer, with the same model.
    """

    def __init__(
        self, service: Service, kserve: Callable[[], Awaitable[App]], *, is_fast: bool = True, has_docs: bool = False
    ) -> None:
        self._service, self._kserve, self._has_docs = service, kserve, has_docs
        predict, infer = (self._predict, self._infer) if is_fast else (self._hand_on, self._check_and_hand_on)
        model_v1, model_v2 = f"/v1/models/{service.name}", f"/v2/models/{service.name}"
        self._routes = {
            f"{model_v1}:predict": Route("v1", "predict", predict, ("POST",)),
            f"{model_v2}/infer": Route("v2", "infer", infer, ("POST",)),
            model_v1: Route("v1", "health", self._ready),
            f"{model_v2}/ready": Route("v2", "health", self._ready),
            "/v2/health/ready": Route("v2", "health", self._server_ready),
            "/v2/health/live": Route("v2", "health", self._live),
            model_v2: Route("v2", "metadata", self._metadata),
            "/metrics": Route("http", "metrics", self._metrics),
        }
        page = Page(service.name)
        for path in page.paths:
            self._routes[path] = Route("http", "page", page.answer)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        exchange = Exchange(self._service, scope, receive, send)
        self._service.metrics.begin()
        try:
            await self._answer(exchange)
        except RequestError as error:
            await exchange.refuse(error)
        except Disconnected:
            pass
        except Exception:
            exchange.error = "internal error"
            if not exchange.has_started:
                # uvicorn closes the connection of an application that failed.
                closing = [(b"connection", b"close")]
                await exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL, headers=closing)
            raise
        finally:
            exchange.finish()

    async def _answer(self, exchange: Exchange) -> None:
        path = exchange.scope["path"]
        route = self._routes.get(path) or self._find(path)
        exchange.protocol, exchange.route = route.protocol, route.name
        if exchange.scope["method"] not in route.methods:
            raise WrongMethod(route.methods[0], exchange.scope["method"])
        await route.handler(exchange)

    def _find(self, path: str) -> Route:
        """The route of a path that is not written as usual. Raises `UnknownModel`, `UnknownRoute`."""
        if _KSERVE.fullmatch(path) or (self._has_docs and _KSERVE_DOCS.fullmatch(path)):
            protocol = path[1:3]
            return (
                Route(protocol, "metadata", self._hand_on) if protocol in ("v1", "v2") else Route("http", "other", self._hand_on)
            )
        found = _V1_MODEL.fullmatch(path) or _V2_MODEL.fullmatch(path)
        if not found:
            raise UnknownRoute(path)
        if found[1] != self._service.name:
            raise UnknownModel(found[1], [self._service.name])
        version = found[2] if found.re is _V2_MODEL else None
        assert version, "all paths without a version are in the table"
        tensors.check_version(version, self._service.identity.version)
        return self._routes[f"/v2/models/{found[1]}{found[3] or ''}"]

    async def _predict(self, exchange: Exchange) -> None:
        content_type = exchange.header(b"content-type")
        if b"ce-specversion" in exchange.headers or content_type.startswith("application/cloudevents"):
            await self._hand_on(exchange)
            return
        body = await exchange.body()
        limit = self._service.limits.max_instances
        is_json = content_type in _JSON_TYPES
        if len(body) > _THREAD_BYTES or not is_json or b'"b64"' in body or b"\\" in body:
            images = await self._service.in_thread(codec.decode, body, content_type, limit, until=exchange.disconnected)
        else:
            images = codec.decode(body, content_type, limit)
        answer = await self._service.batcher.answer(images)
        shown = images if exchange.header(_RETURN_IMAGES).lower() == "true" else None
        await exchange.answer(HTTPStatus.OK, orjson.dumps(codec.encode(answer, self._service.identity.version, shown)))
        self._service.first_answer.set()

    async def _infer(self, exchange: Exchange) -> None:
        body = await exchange.body()
        length = exchange.header(tensors.HEADER_LENGTH.encode()) or None
        limit = self._service.limits.max_instances
        if length is None and len(body) > _THREAD_BYTES:
            request = await self._service.in_thread(tensors.parse, body, length, limit, until=exchange.disconnected)
        else:
            request = tensors.parse(body, length, limit)
        answer = await self._service.batcher.answer(request.images)
        request_id = exchange.request_id if request.id is None else request.id
        content, json_length = tensors.encode(answer, request, self._service.identity, request_id)
        if json_length is None:
            await exchange.answer(HTTPStatus.OK, content)
        else:
            headers = [(tensors.HEADER_LENGTH.encode(), b"%d" % json_length)]
            await exchange.answer(HTTPStatus.OK, content, b"application/octet-stream", headers)
        self._service.first_answer.set()

    async def _check_and_hand_on(self, exchange: Exchange) -> None:
        """Hand on a good V2 request: kserve answers bad ones with 422, the input in it, or with 500."""
        body = await exchange.body()
        tensors.parse(body, exchange.header(tensors.HEADER_LENGTH.encode()) or None, self._service.limits.max_instances)
        await self._hand_on(exchange, body)

    async def _hand_on(self, exchange: Exchange, body: bytes | None = None) -> None:
        """Let kserve's app answer."""
        if body is None and exchange.scope["method"] not in _GET:
            body = await exchange.body()
        app = await self._kserve()
        messages: list[Message] = [{"type": "http.request", "body": body or b"", "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await exchange.receive()

        await app(exchange.scope, replay, exchange.send)

    async def _ready(self, exchange: Exchange) -> None:
        self._check_draining()
        await exchange.answer(HTTPStatus.OK, orjson.dumps({"name": self._service.name, "ready": True}))

    async def _server_ready(self, exchange: Exchange) -> None:
        self._check_draining()
        await exchange.answer(HTTPStatus.OK, b'{"ready":true}')

    def _check_draining(self) -> None:
        if self._service.is_draining:
            message = "server: expected to be ready, got a request to stop"
            raise Overloaded(message)

    async def _live(self, exchange: Exchange) -> None:
        await exchange.answer(HTTPStatus.OK, b'{"live":true}')

    async def _metadata(self, exchange: Exchange) -> None:
        await exchange.answer(HTTPStatus.OK, orjson.dumps(self._service.identity.metadata(*tensors.metadata())))

    async def _metrics(self, exchange: Exchange) -> None:
        content, content_type = self._service.metrics.expose(exchange.header(b"accept"))
        await exchange.answer(HTTPStatus.OK, content, content_type.encode())

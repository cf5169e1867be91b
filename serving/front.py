"""The ASGI callable in front of kserve's app: it answers the hot routes itself, closes some of kserve's, hands on the rest."""

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import orjson

from serving import labelled, tensors
from serving.engine import Answer
from serving.errors import Disconnected, FeedbackOff, Overloaded, RequestError, UnknownModel, UnknownRoute, WrongMethod
from serving.exchange import App, Exchange, Message, Receive, Send
from serving.labelled import Labelled
from serving.page import Page
from serving.rest import V1, V2, Question, Reader, Sampled
from serving.service import Service
from serving.shadow import MARK

logger = logging.getLogger("serving")

_INTERNAL = b'{"error":"internal error"}'
# uvicorn closes the connection of an application that failed.
_CLOSING = [(b"connection", b"close")]
_GET = ("GET", "HEAD")
_MARK = MARK.encode()
# kserve has more routes, among them those by which anybody could load and unload models.
_KSERVE = re.compile(r"/v1/models|/v2|/v2/models")
_KSERVE_DOCS = re.compile(r"/docs|/openapi\.json")
_V1_MODEL = re.compile(r"/v1/models/([^/:]+)(:predict|:feedback)?")
_V2_MODEL = re.compile(r"/v2/models/([^/]+)(?:/feedback|(?:/versions/([^/]+))?(/infer|/ready)?)")

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
        self._v1, self._v2 = self._reader(V1(service), f"{model_v1}:predict"), self._reader(V2(service), f"{model_v2}/infer")
        self._routes = {
            f"{model_v1}:predict": Route("v1", "predict", predict, ("POST",)),
            f"{model_v2}/infer": Route("v2", "infer", infer, ("POST",)),
            f"{model_v1}:feedback": Route("v1", "feedback", self._take_labels, ("POST",)),
            f"{model_v2}/feedback": Route("v2", "feedback", self._take_label_tensors, ("POST",)),
            model_v1: Route("v1", "health", self._ready),
            f"{model_v2}/ready": Route("v2", "health", self._ready),
            "/v2/health/ready": Route("v2", "health", self._server_ready),
            "/v2/health/live": Route("v2", "health", self._live),
            model_v2: Route("v2", "metadata", self._metadata),
            "/metrics": Route("http", "metrics", self._metrics),
        }
        hot: dict[str, Reader] = {f"{model_v1}:predict": self._v1, f"{model_v2}/infer": self._v2}
        self._hot = hot if is_fast else {}
        page = Page(service.name, service.feedback.terms.asked_share if service.feedback else None)
        for path in page.paths:
            self._routes[path] = Route("http", "page", page.answer)

    def _reader(self, reader: Reader, path: str) -> Reader:
        return Sampled(reader, path, self._service.sample) if self._service.sample else reader

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
                await exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL, headers=_CLOSING)
            raise
        finally:
            exchange.finish()

    def is_hot(self, scope: Message) -> bool:
        """Whether `take` is to be asked for a request."""
        return scope["path"] in self._hot and scope["method"] == "POST"

    def take(self, cycle: Any) -> bool:
        """Begin to answer a request without a task; false for what is large, wrong, or otherwise out of the usual.

        Such a request is answered as usual, and nothing of it was counted.
        """
        exchange = Exchange(self._service, cycle.scope, cycle.receive, cycle.send, cycle)
        reader, body = self._hot[cycle.scope["path"]], bytes(cycle.body)
        if cycle.flow.write_paused or not reader.is_light(exchange, body):
            return False
        try:
            question = reader.read(exchange, body)
            batcher = self._service.batcher_for(is_probe=_MARK in exchange.headers)
            batcher.submit(question.images, partial(self._deliver, exchange, question), lambda: cycle.disconnected)
        except Exception:  # noqa: BLE001 -- whatever it is, it is met again, and then answered
            return False
        route = self._routes[cycle.scope["path"]]
        exchange.protocol, exchange.route = route.protocol, route.name
        self._service.metrics.begin()
        return True

    def _deliver(self, exchange: Exchange, question: Question, result: Answer | Exception) -> None:
        try:
            exchange.write(HTTPStatus.OK, *question.answer(result))
            self._service.first_answer.set()
        except Disconnected:
            pass
        except Exception:
            exchange.error = "internal error"
            logger.exception(exchange.error)
            if not exchange.has_started:
                exchange.write(HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL, headers=_CLOSING)
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
        else:
            await self._ask(exchange, self._v1)

    async def _infer(self, exchange: Exchange) -> None:
        await self._ask(exchange, self._v2)

    async def _ask(self, exchange: Exchange, reader: Reader) -> None:
        body = await exchange.body()
        if reader.is_light(exchange, body):
            question = reader.read(exchange, body)
        else:
            question = await self._service.in_thread(reader.read, exchange, body, until=exchange.disconnected)
        answer = await self._service.batcher_for(is_probe=_MARK in exchange.headers).answer(question.images)
        await exchange.answer(HTTPStatus.OK, *question.write(answer))
        self._service.first_answer.set()

    async def _take_labels(self, exchange: Exchange) -> None:
        await self._take_feedback(exchange, labelled.parse, exchange.header(b"content-type"))

    async def _take_label_tensors(self, exchange: Exchange) -> None:
        length = exchange.header(tensors.HEADER_LENGTH.encode())
        await self._take_feedback(exchange, labelled.parse_tensors, length or None)

    async def _take_feedback(self, exchange: Exchange, read: Callable[..., Labelled], about_body: str | None) -> None:
        """Count what the answers should have been, whoever answers predictions. Raises `FeedbackOff`."""
        feedback = self._service.feedback
        if feedback is None:
            raise FeedbackOff
        body = await exchange.body()
        most = min(labelled.MAX_INSTANCES, self._service.limits.max_instances)
        found = await self._service.in_thread(read, body, about_body, most, until=exchange.disconnected)
        await exchange.answer(HTTPStatus.OK, orjson.dumps(await feedback.take(found)))

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

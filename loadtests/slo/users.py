"""Locust's users: each asks about one question after the other, and looks at every answer."""

import random
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import grpc
from grpc.experimental.gevent import init_gevent
from locust import FastHttpUser, User, task

from loadtests.peers.wire import GRPC_PATH, LENGTH_HEADER, AnswerError, grpc_answer, messages, v1_answer, v2_answer
from loadtests.slo.answers import Answers
from loadtests.slo.kinds import Kind
from loadtests.slo.questions import Question, Questions
from loadtests.slo.settings import Settings

# Of a user that got no answer, so that a server that refuses is not asked as fast as it can refuse.
_REFUSED_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Course:
    """What users of a run have in common."""

    settings: Settings
    questions: Questions
    answers: Answers
    pause_seconds: float
    timeout_seconds: float

    def pause(self) -> float:
        """Seconds, not always the same, so that users who came together do not ask together."""
        return random.uniform(0.5, 1.5) * self.pause_seconds  # noqa: S311 -- it is no secret


@dataclass(kw_only=True)
class Marks:
    """What an answer was found to be, for those who listen to Locust's event; and how late its question was sent."""

    right: int = 0
    images: int = 0
    version: str = ""
    late_seconds: float = 0.0


class Asker(Protocol):
    """A user, as those see it that are no runner of Locust."""

    late_seconds: float

    def ask(self) -> None:
        """Ask one question; the environment's event ``request`` tells how it went."""
        ...


class RestUser(FastHttpUser):
    """Asks by HTTP/1.1 on a connection of its own, which is kept."""

    abstract = True
    # Unlike Locust's default, a certificate has to be right.
    insecure = False
    kind: ClassVar[Kind]
    course: ClassVar[Course]
    late_seconds = 0.0

    def __init__(self, environment: Any) -> None:
        settings = self.course.settings
        self.network_timeout = self.connection_timeout = self.course.timeout_seconds
        self.default_headers = {"Host": settings.host_header} if settings.host_header else {}
        super().__init__(environment)

    def wait_time(self) -> float:
        """Seconds between an answer and the next question."""
        return self.course.pause()

    @task
    def ask(self) -> None:
        """See `Asker`."""
        question, marks = self.course.questions.draw(self.kind), Marks(late_seconds=self.late_seconds)
        # Its types know no bytes, which it sends as they are.
        body = cast("str", question.body)
        options: dict[str, Any] = {"headers": question.headers, "context": {"marks": marks}, "allow_redirects": False}
        with self.client.request("POST", question.path, self.kind, body, catch_response=True, **options) as response:
            if response.status_code == 200:
                try:
                    self._check(question, response, marks)
                except AnswerError as error:
                    response.failure(error)
            elif response.status_code:
                response.failure(f"status {response.status_code}: {(response.content or b'')[:200]!r}")
        if not response.status_code:
            time.sleep(_REFUSED_SECONDS)

    def _check(self, question: Question, response: Any, marks: Marks) -> None:
        marks.version = response.headers.get("x-model-version", "")
        content = response.content or b""
        if self.kind is Kind.V2:
            length = response.headers.get(LENGTH_HEADER, "0")
            labels, probabilities = v2_answer(content, int(length) if length.isdecimal() else 0)
        else:
            labels, probabilities = v1_answer(content)
        marks.right = self.course.answers.check(question, marks.version, labels, probabilities)
        marks.images = len(question.indices)


class V1User(RestUser):
    """Sends numbers in JSON."""

    kind = Kind.V1


class V2User(RestUser):
    """Sends batches of tensors in binary."""

    kind = Kind.V2


class ImageUser(RestUser):
    """Sends a PNG."""

    kind = Kind.IMAGE


class GrpcUser(User):
    """Calls by gRPC on a channel of its own."""

    kind: ClassVar[Kind] = Kind.GRPC
    course: ClassVar[Course]
    late_seconds = 0.0

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        settings = self.course.settings
        scheme, _, address = settings.grpc_host.rpartition("://")
        options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        # A call that found no connection is not tried again: it has failed.
        options += [("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 1000)]
        if settings.host_header:
            options.append(("grpc.default_authority", settings.host_header))
        is_secure = scheme == "https"
        credentials = (grpc.ssl_channel_credentials(),) if is_secure else ()
        open_channel = grpc.secure_channel if is_secure else grpc.insecure_channel
        self._channel = open_channel(address, *credentials, options=options)
        self._infer = self._channel.unary_unary(
            GRPC_PATH,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages().ModelInferResponse.FromString,
        )

    def wait_time(self) -> float:
        """Seconds between an answer and the next question."""
        return self.course.pause()

    def on_stop(self) -> None:
        """Close the channel."""
        self._channel.close()

    @task
    def ask(self) -> None:
        """See `Asker`."""
        question, marks = self.course.questions.draw(self.kind), Marks(late_seconds=self.late_seconds)
        error: Exception | None = None
        sent, begun, size = time.time(), time.perf_counter(), 0
        try:
            answer, call = self._infer.with_call(question.body, timeout=self.course.timeout_seconds)
            seconds, size = time.perf_counter() - begun, answer.ByteSize()
            self._check(question, answer, call, marks)
        except grpc.RpcError as refusal:
            seconds = time.perf_counter() - begun
            error = ConnectionError(f"{refusal.code().name}: {refusal.details()}")
        except AnswerError as wrong:
            error = wrong
        self.environment.events.request.fire(
            request_type="gRPC",
            name=self.kind,
            response_time=seconds * 1000,
            response_length=size,
            exception=error,
            start_time=sent,
            context={"marks": marks},
        )
        if isinstance(error, ConnectionError):
            time.sleep(_REFUSED_SECONDS)

    def _check(self, question: Question, answer: Any, call: Any, marks: Marks) -> None:
        marks.version = dict(call.trailing_metadata()).get("x-model-version", "")
        try:
            labels, probabilities = grpc_answer(answer)
        except (ValueError, IndexError) as error:
            message = f"expected tensors of the shapes they state: {error}"
            raise AnswerError(message) from error
        marks.right = self.course.answers.check(question, marks.version, labels, probabilities)
        marks.images = len(question.indices)


USERS: tuple[type[RestUser] | type[GrpcUser], ...] = (V1User, V2User, ImageUser, GrpcUser)


def prepare(course: Course, host: str) -> None:
    """Before the first user is made, in each process. grpc is told once that gevent replaces threads."""
    for user in USERS:
        user.course, user.host = course, host
    if course.settings.grpc_host:
        init_gevent()

"""A number of bodies of one protocol, one after the other, and what must hold of all of them together."""

import http.client
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from tests.fuzz.body import V1_FEEDBACK_PATH, V1_PATH, V2_FEEDBACK_PATH, V2_PATH, Body, Source
from tests.fuzz.checks import Judge
from tests.fuzz.messages import INFER
from tests.fuzz.target import HEALTH_PATH, Counts, HealthPoller, Reply, Rest, Rpc, Target
from tests.processes import ROOT

BODIES = int(os.environ.get("FUZZ_BODIES", "300"))
SEED = os.environ.get("FUZZ_SEED", "28")
# Where to begin: one body is sent again by its number and FUZZ_BODIES=1.
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))

_SLOW_SECONDS, _TRIES = 2.0, 3
_KNOWN_EVERY = 50
# Each on a new connection, so that each process gets some.
_WARM_UPS = 6
_PROGRESS_SECONDS = 5.0
_KIND_CHARACTERS, _SHOWN_OF_A_KIND = 60, 3
_MAX_GROWTH_MIB = 30.0
_SETTLE_SECONDS = 5.0
# Shares are of many bodies.
_LEAST_FOR_SHARES = 100
_ROUTES = {
    V1_PATH: ("v1", "predict"),
    V1_FEEDBACK_PATH: ("v1", "feedback"),
    V2_PATH: ("v2", "infer"),
    V2_FEEDBACK_PATH: ("v2", "feedback"),
    HEALTH_PATH: ("v2", "health"),
    INFER: ("grpc", "infer"),
}
_RPC_ROUTES = {"Live": "health", "Ready": "health", "Metadata": "metadata"}
_FILES = ROOT / "build" / "fuzz"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is sent: ``first`` bodies that are always sent, then those of ``source``; ``known`` in between.

    The ``large`` ones come before all, so that the memory which an allocator keeps of the largest requests is no growth.
    """

    name: str
    source: Source
    known: Body
    large: tuple[Body, ...]
    first: tuple[Body, ...] = ()

    @property
    def is_rpc(self) -> bool:
        """Whether it is gRPC."""
        return self.known.target == INFER

    def body(self, index: int) -> Body:
        """Body number ``index``, the same one each time."""
        if index < len(self.first):
            return self.first[index]
        return self.source(Random(f"{SEED}/{self.name}/{index}"))  # noqa: S311 -- nothing here is secret


@dataclass
class Campaign:
    """Sends ``count`` bodies of ``protocol`` to ``target``, and collects what is wrong in ``faults``."""

    target: Target
    protocol: Protocol
    judge: Judge
    count: int = BODIES
    faults: list[str] = field(default_factory=list)

    def run(self) -> None:
        """All of it."""
        self._origins: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._sent: Counts = Counter()
        self._reached, self._slowest = 0, 0.0
        self._warm_mib = 0.0
        self._kinds: Counter[str] = Counter()
        target = self.target
        self._rest, self._rpc = Rest(target.http_port), Rpc(target.grpc_port)
        before, processes, lines = target.counts(), target.processes(), len(target.server.lines)
        try:
            with HealthPoller(target.http_port) as poller:
                self._send_all()
        finally:
            self._rest.close()
            self._rpc.close()
        self._sent["v2", "health", "200"] += poller.polls
        if poller.bad or poller.slowest > _SLOW_SECONDS:
            self._fault(f"health: {poller.bad or 'slow'}, the slowest of {poller.polls} answers took {poller.slowest:.2f} s")
        self._check_server(before, processes)
        # gRPC's library logs one for each message that it cannot parse.
        logged = [line for line in target.server.lines[lines:] if "Exception deserializing" not in line]
        if traces := [line for line in logged if "Traceback" in line]:
            self._fault(f"{len(traces)} tracebacks in the server's log, the first: {traces[0][:2000]}")
        self._check_shares()
        self.faults += [f"{count} like: {kind}" for kind, count in self._kinds.items() if count > _SHOWN_OF_A_KIND]
        print(self.summary(), flush=True)

    def summary(self) -> str:
        """Counts and shares in a line."""
        origins = ", ".join(f"{self._origins[origin] / self.count:.0%} {origin}" for origin in ("valid", "mutated", "made"))
        statuses = ", ".join(f"{status} {count:,}" for status, count in sorted(self._statuses.items()))
        return (
            f"fuzz {self.protocol.name}: {self.count:,} bodies of seed {SEED} ({origins}), {self._reached / self.count:.0%} "
            f"reached the engine; {statuses}; slowest {self._slowest:.2f} s; {len(self.faults)} faults"
        )

    def _warm_up(self) -> None:
        for body in self.protocol.large:
            if wrong := self._ask_known(body):
                self._fault(f"a large request, {'good' if body.is_good else 'bad'}: {wrong}")
        for _ in range(_WARM_UPS - 1):
            self._rest.close()
            self._rpc.close()
            for body in self.protocol.large:
                self._ask(body)

    def _send_all(self) -> None:
        self._warm_up()
        last = started = time.monotonic()
        warm = max(self.count // 10, len(self.protocol.first) + 20)
        for done in range(self.count):
            if (code := self.target.server.popen.poll()) is not None:
                self._fault(f"the server ended with {code} after {done} bodies")
                return
            self._send(FIRST + done)
            if done % _KNOWN_EVERY == _KNOWN_EVERY - 1:
                self._check_known(FIRST + done)
            if done == warm:
                self._warm_mib = self.target.memory_mib()
            if time.monotonic() - last > _PROGRESS_SECONDS:
                last = time.monotonic()
                rate = (done + 1) / (last - started)
                state = f"{rate:.0f}/s, {self.target.memory_mib():.0f} MiB, {len(self.faults)} faults"
                print(f"fuzz {self.protocol.name}: {done + 1:,} of {self.count:,}, {state}", flush=True)

    def _send(self, index: int) -> None:
        body = self.protocol.body(index)
        self._origins[body.origin] += 1
        reply = self._ask(body)
        for _ in range(_TRIES - 1):
            if isinstance(reply, Reply) and reply.seconds > _SLOW_SECONDS:
                # A machine that was busy otherwise gets another try; a body that is slow is slow each time.
                reply = self._ask(body)
        if isinstance(reply, str):
            self._fault(reply, index, body)
            return
        self._statuses[reply.status] += 1
        self._slowest = max(self._slowest, reply.seconds)
        self._reached += reply.status == "200" or (reply.status == "OK" and body.target == INFER)
        wrong = self.judge.rpc(body, reply) if self.protocol.is_rpc else self.judge.rest(body, reply)
        if wrong:
            self._fault(wrong, index, body)
        if reply.seconds > _SLOW_SECONDS:
            self._fault(f"answered {reply.status} after {reply.seconds:.1f} s, {_TRIES} times", index, body)

    def _ask(self, body: Body) -> Reply | str:
        try:
            reply = (self._rpc if self.protocol.is_rpc else self._rest).send(body)
        except (OSError, http.client.HTTPException) as error:
            return f"no answer: {error!r}"
        protocol, route = _ROUTES.get(body.target) or (
            "grpc",
            next((_RPC_ROUTES[end] for end in _RPC_ROUTES if body.target.endswith(end)), ""),
        )
        # What gRPC's own library refuses never comes to the service.
        if protocol != "grpc" or "x-request-id" in reply.headers:
            self._sent[protocol, route, reply.status] += 1
        return reply

    def _ask_known(self, body: Body) -> str:
        reply = self._ask(body)
        judge = self.judge.rpc if self.protocol.is_rpc else self.judge.rest
        return reply if isinstance(reply, str) else judge(body, reply)

    def _check_known(self, index: int) -> None:
        health = self._rest.ask("GET", HEALTH_PATH)
        self._sent["v2", "health", health.status] += 1
        wrong = self._ask_known(self.protocol.known)
        if health.status != "200" or wrong:
            self._fault(f"after body {index}: health {health.status}, the known good request: {wrong}")

    def _check_server(self, before: Counts, processes: list[int]) -> None:
        deadline = time.monotonic() + _SETTLE_SECONDS
        counted, in_flight = self.target.counts() - before, self.target.value("chiffre_requests_in_flight")
        while (counted, in_flight) != (self._sent, 1) and time.monotonic() < deadline:
            # An answer is there a moment before it is counted.
            time.sleep(0.05)
            counted, in_flight = self.target.counts() - before, self.target.value("chiffre_requests_in_flight")
        if counted != self._sent:
            self._fault(f"counted and not sent: {dict(counted - self._sent)}; sent and not counted: {dict(self._sent - counted)}")
        if in_flight != 1:
            self._fault(f"{in_flight:g} requests in flight, expected 1, the scrape")
        if restarts := self.target.value("chiffre_worker_restarts_total"):
            self._fault(f"{restarts:g} workers were restarted")
        if (now := self.target.processes()) != processes:
            self._fault(f"the server's processes are {now}, they were {processes}")
        if self._warm_mib and (growth := self.target.memory_mib() - self._warm_mib) > _MAX_GROWTH_MIB:
            self._fault(f"memory grew by {growth:.0f} MiB from {self._warm_mib:.0f} MiB")

    def _check_shares(self) -> None:
        if self.count < _LEAST_FOR_SHARES:
            return
        if self._origins["mutated"] < self.count / 2:
            self._fault(f"{self._origins['mutated']} bodies are mutations of valid ones, expected half of {self.count}")
        if self._reached < self.count / 5:
            self._fault(f"{self._reached} bodies reached the engine, expected a fifth of {self.count}")

    def _fault(self, what: str, index: int | None = None, body: Body | None = None) -> None:
        if body is None:
            self.faults.append(what)
            return
        # Of what is wrong in the same way, a few are enough to see why.
        kind = re.sub("[0-9]+", "", what)[:_KIND_CHARACTERS]
        self._kinds[kind] += 1
        if self._kinds[kind] > _SHOWN_OF_A_KIND:
            return
        _FILES.mkdir(parents=True, exist_ok=True)
        file = _FILES / f"{self.protocol.name}-{SEED}-{index}.bin"
        file.write_bytes(body.content)
        where = f"{body.target}, headers {body.headers!r:.400}, {body.origin}, in {file.relative_to(ROOT)}"
        again = f"FUZZ_SEED={SEED} FUZZ_FIRST={index} FUZZ_BODIES=1"
        self.faults.append(f"{what}\n    body {index} ({again}): {where}")

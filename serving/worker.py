"""One process that answers: REST in an event loop, gRPC in a thread, and how it stops without losing a request."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn

from serving.calls import CallServer
from serving.front import Front
from serving.kserve_app import Mount
from serving.rpc import Servicer
from serving.service import Service
from serving.shadow import build_app
from serving.supervisor import STOPPING
from serving.transport import Connection

_BEAT_SECONDS = 1.0
# How long after the listener is closed a connection that it still took may send its request.
_LINGER_SECONDS, _LOOK_SECONDS = 1.0, 0.02
# kserve is imported after the first answer, or when this long nobody asked.
_KSERVE_WAIT_SECONDS = 0.5
# While a thread imports, the event loop gets its turn after this instead of Python's 5 ms.
_IMPORT_SWITCH_SECONDS = 0.0005

logger = logging.getLogger("serving")


class Listener(uvicorn.Server):
    """uvicorn's server, which leaves signals to us, and can stop listening without refusing whom it had accepted."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket) -> None:
        super().__init__(config)
        self._listening = listening
        self.is_up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: signals are the worker's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self.is_up.set()

    async def stop_listening(self) -> None:
        """Close the socket, after taking what the kernel had accepted for it."""
        # The event loop closes the socket that it was given; this one goes on until nothing is left in its queue.
        last = self._listening.dup()
        last.setblocking(False)
        for server in self.servers:
            server.close()
        accepted = []
        with suppress(BlockingIOError):
            while True:
                accepted.append(last.accept()[0])
        last.close()
        loop = asyncio.get_running_loop()
        for connection in accepted:
            await loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)

    async def linger(self, seconds: float) -> None:
        """Wait until all connections have ended, which uvicorn tells nobody, or for ``seconds``."""
        for _ in range(int(seconds / _LOOK_SECONDS)):
            if not self.server_state.connections:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _protocol(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state={})


class Worker:
    """Serves until it is told to stop; at ``shadow``, where there is that socket, it shows the sample of requests."""

    def __init__(
        self,
        service: Service,
        arguments: argparse.Namespace,
        mount: Mount,
        listening: socket.socket,
        shadow: socket.socket | None = None,
    ) -> None:
        self._service, self._arguments, self._mount = service, arguments, mount
        self._listening, self._shadow = listening, shadow
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._parent = os.getppid()

    async def run(self, on_ready: Callable[[], None], on_kserve: Callable[[], None]) -> int:
        """Answer until a signal; the exit code. ``on_ready`` is called once requests are answered, ``on_kserve`` when all are."""
        arguments = self._arguments
        loop = asyncio.get_running_loop()
        for number in STOPPING:
            loop.add_signal_handler(number, self.stop, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        listener = self._listener()
        grpc_server = self._start_grpc() if arguments.enable_grpc else None
        # uvicorn makes the tasks of all requests that one turn of the event loop has read before it runs the first.
        for batcher in self._service.batchers:
            batcher.is_alone = lambda: len(listener.server_state.tasks) <= 1
        serving = asyncio.create_task(listener.serve(sockets=[self._listening]))
        await listener.is_up.wait()
        on_ready()
        mounting = asyncio.create_task(self._import_kserve(on_kserve))
        beating = asyncio.create_task(self._beat())
        showing = asyncio.create_task(self._show_sample())
        await self._stop.wait()
        await self._drain(listener, grpc_server)
        beating.cancel()
        await showing
        await serving
        if mounting.done() and not mounting.cancelled() and mounting.exception():
            logger.critical("kserve cannot be loaded", exc_info=mounting.exception())
            return 1
        mounting.cancel()
        return 0

    def stop(self, number: int) -> None:
        """Stop by signal ``number``: SIGTERM after draining, SIGINT or a second signal at once."""
        logger.info("stopping", extra={"signal": signal.Signals(number).name})
        if number == signal.SIGINT or self._stop.is_set():
            self._hurry.set()
        self._service.is_draining = True
        self._stop.set()

    def _listener(self) -> Listener:
        arguments = self._arguments
        front = Front(self._service, self._mount.app, is_fast=arguments.fast_path, has_docs=arguments.enable_docs_url)
        config = uvicorn.Config(
            front,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=arguments.timeout_keep_alive,
            timeout_graceful_shutdown=max(1, int(arguments.grace_seconds)),
            ssl_certfile=arguments.ssl_certfile,
            ssl_keyfile=arguments.ssl_keyfile,
        )
        return Listener(config, self._listening)

    async def _show_sample(self) -> None:
        """Show the sample of requests, where there is one, until a signal."""
        if self._shadow is None or self._service.sample is None:
            return
        config = uvicorn.Config(
            build_app(self._service.sample),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        listener = Listener(config, self._shadow)
        serving = asyncio.create_task(listener.serve(sockets=[self._shadow]))
        await self._stop.wait()
        listener.should_exit = True
        await serving

    def _start_grpc(self) -> CallServer:
        arguments = self._arguments
        servicer = Servicer(self._service, None if arguments.fast_path else self._mount.infer(asyncio.get_running_loop()))
        options = [
            ("grpc.max_send_message_length", arguments.grpc_max_send_message_length),
            ("grpc.max_receive_message_length", arguments.grpc_max_receive_message_length),
            # All workers listen at the port, and the kernel spreads connections over them.
            ("grpc.so_reuseport", 1),
        ]
        server = servicer.server(arguments.grpc_port, options)
        server.start()
        return server

    async def _import_kserve(self, on_kserve: Callable[[], None]) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._service.first_answer.wait(), _KSERVE_WAIT_SECONDS)
        usual = sys.getswitchinterval()
        sys.setswitchinterval(_IMPORT_SWITCH_SECONDS)
        try:
            await self._mount.begin()
        except BaseException:
            # Whatever kserve lacks, its routes would not be answered.
            self._hurry.set()
            self._stop.set()
            raise
        finally:
            sys.setswitchinterval(usual)
        on_kserve()

    async def _beat(self) -> None:
        """Show that the event loop turns, and stop when the supervisor is gone."""
        while True:
            self._service.metrics.beat()
            # A server without workers has a launcher for a parent, which may go.
            if self._arguments.workers > 1 and os.getppid() != self._parent:
                logger.error("the supervisor is gone")
                self.stop(signal.SIGINT)
            await asyncio.sleep(_BEAT_SECONDS)

    async def _drain(self, listener: Listener, grpc_server: CallServer | None) -> None:
        """Readiness fails by now: answer what still comes for a while, then close the ports, then finish what is open."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._arguments.drain_seconds)
        closed = grpc_server.stop(self._arguments.grace_seconds) if grpc_server else None
        await listener.stop_listening()
        if not self._hurry.is_set():
            await listener.linger(_LINGER_SECONDS)
        listener.should_exit = True
        if closed:
            await asyncio.to_thread(closed.wait, self._arguments.grace_seconds)

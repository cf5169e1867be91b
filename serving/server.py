"""The server as a whole: load, listen, answer, in this process or in several."""

import argparse
import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from model.bundle import Bundle, BundleError
from serving import logs
from serving.engine import Engine
from serving.flags import build_parser
from serving.kserve_app import Mount, build_server
from serving.service import Limits, Service
from serving.startup import Startup
from serving.supervisor import EXIT_CONFIGURATION, Supervisor
from serving.worker import Worker

_BACKLOG = 2048
# What workers may take beyond draining and grace before they are killed.
_STOP_MARGIN_SECONDS = 3.0

logger = logging.getLogger("serving")


def run(startup: Startup) -> int:
    """Serve what the command line says; the exit code."""
    arguments = build_parser().parse_args()
    startup.mark("imports")
    logs.configure()
    try:
        service = _load(arguments, startup)
        listening = _listen("http_port", arguments.http_port)
        if arguments.enable_grpc:
            # Workers share the port, and would share it with a stranger too.
            _listen("grpc_port", arguments.grpc_port).close()
    except (BundleError, ConfigurationError) as error:
        return _give_up(arguments.termination_log, str(error))
    logger.info("serving", extra={"settings": vars(arguments), "model": vars(service.identity)})
    ports = {"http_port": arguments.http_port, "grpc_port": arguments.grpc_port}
    if arguments.workers == 1:
        return _serve(service, arguments, listening, Mount(partial(build_server, service, ports)), startup, 0)
    # What is made before the fork is in memory once.
    server = build_server(service, ports)
    mount = Mount(lambda: server)
    startup.mark("kserve")
    work = partial(_serve, service, arguments, listening, mount, startup)
    stop_seconds = arguments.drain_seconds + arguments.grace_seconds + _STOP_MARGIN_SECONDS
    return Supervisor(arguments.workers, work, service.metrics, listening, stop_seconds=stop_seconds).supervise()


class ConfigurationError(ValueError):
    """A flag that cannot be followed; the message names it."""


def _load(arguments: argparse.Namespace, startup: Startup) -> Service:
    bundle = Bundle.load(arguments.model_dir)
    startup.mark("bundle")
    engine = Engine(bundle, arguments.engine)
    limits = Limits(
        max_instances=arguments.max_instances,
        max_body_bytes=arguments.max_body_bytes,
        max_queued_images=arguments.max_queued_images,
    )
    service = Service(arguments.model_name, engine, workers=arguments.workers, limits=limits, log_requests=arguments.log_requests)
    startup.mark("engine")
    return service


def _listen(flag: str, port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("0.0.0.0", port))  # noqa: S104 -- a pod's port is for the cluster
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = "one that is taken" if getattr(error, "errno", 0) == errno.EADDRINUSE else str(error)
        message = f"--{flag}: expected a free port, got {port}, {reason}"
        raise ConfigurationError(message) from error
    return listening


def _give_up(termination_log: Path, message: str) -> int:
    """Say why where people and Kubernetes look for it."""
    print(f"error: {message}", file=sys.stderr)
    if termination_log.exists():
        with suppress(OSError):
            termination_log.write_text(message)
    return EXIT_CONFIGURATION


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name == "asyncio":
        return None
    import uvloop  # noqa: PLC0415 -- the one that was chosen

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _serve(
    service: Service, arguments: argparse.Namespace, listening: socket.socket, mount: Mount, startup: Startup, worker: int
) -> int:
    """Answer in this process, as ``worker``."""

    def on_ready() -> None:
        startup.mark("listen")
        startup.mark("ready")
        count_phases()
        logger.info("ready", extra={"worker": worker, "seconds": round(startup.seconds["ready"], 3)})

    def on_kserve() -> None:
        if arguments.workers == 1:
            startup.mark("kserve")
            gc.freeze()
        count_phases()
        if arguments.startup_profile and worker == 0:
            print(startup.report(), flush=True)
            os.kill(os.getppid() if arguments.workers > 1 else os.getpid(), signal.SIGINT)

    def count_phases() -> None:
        for phase, seconds in startup.seconds.items():
            service.metrics.set_phase(phase, seconds)

    async def answer() -> int:
        service.start(worker)
        return await Worker(service, arguments, mount, listening).run(on_ready, on_kserve)

    with asyncio.Runner(loop_factory=_loop_factory(arguments.event_loop)) as runner:
        return runner.run(answer())

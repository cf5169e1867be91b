"""The server as a whole: load, listen, answer, in this process or in several."""

import argparse
import asyncio
import ctypes
import errno
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from model.bundle import Bundle, BundleError
from serving import logs
from serving.engine import Engine
from serving.failures import EXIT_CONFIGURATION, note
from serving.feedback import Terms
from serving.flags import build_parser
from serving.kserve_app import Mount, build_server
from serving.service import Limits, Service
from serving.shadow import Sample
from serving.startup import Startup
from serving.supervisor import Supervisor
from serving.worker import Worker

_BACKLOG = 2048
_ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 -- a pod's port is for the cluster
# M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX of malloc.h.
_MALLOC = {-1: 1 << 20, -3: 1 << 20, -8: 2}
# What workers may take beyond draining and grace before they are killed.
_STOP_MARGIN_SECONDS = 3.0

logger = logging.getLogger("serving")


def run(startup: Startup) -> int:
    """Serve what the command line says; the exit code."""
    arguments = build_parser().parse_args()
    startup.mark("imports")
    logs.configure()
    _give_memory_back()
    try:
        _check_certificate(arguments.ssl_certfile, arguments.ssl_keyfile)
        service = _load(arguments, startup)
        listening = _listen(arguments)
        shadow = _listen_shadow(arguments) if service.sample else None
    except (BundleError, ConfigurationError) as error:
        return _give_up(arguments.termination_log, str(error))
    logger.info("serving", extra={"settings": vars(arguments), "model": vars(service.identity)})
    ports = {"http_port": arguments.http_port, "grpc_port": arguments.grpc_port}
    # Each process imports kserve for itself, beside its answers: to do it before the fork would share 50 MB and cost a second.
    work = partial(_serve, service, arguments, Mount(partial(build_server, service, ports)), startup, shadow)
    if arguments.workers == 1:
        return work(0, listening[0])
    stop_seconds = arguments.drain_seconds + arguments.grace_seconds + _STOP_MARGIN_SECONDS
    return Supervisor(work, service.metrics, listening, stop_seconds=stop_seconds).supervise()


def _give_memory_back() -> None:
    """Have glibc's allocator return what large requests took: by itself it keeps hundreds of megabytes of them for later."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)


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
    terms = Terms(per_second=arguments.feedback_per_second, asked_share=arguments.feedback_asked_share)
    service = Service(
        arguments.model_name,
        engine,
        workers=arguments.workers,
        limits=limits,
        log_requests=arguments.log_requests,
        sample=Sample(arguments.shadow_requests, workers=arguments.workers) if arguments.shadow_requests else None,
        terms=terms if arguments.feedback else None,
        is_watched=arguments.watch,
    )
    startup.mark("engine")
    return service


def _listen(arguments: argparse.Namespace) -> list[socket.socket]:
    """A socket at the HTTP port for each worker: the kernel spreads connections over them, evenly, which one socket does not.

    Raises `ConfigurationError` where a port is taken. Sockets that share a port would share it with a stranger too, so that each
    port is first asked for alone.
    """
    first = _bind("http_port", arguments.http_port)
    if arguments.enable_grpc:
        _bind("grpc_port", arguments.grpc_port).close()
    listening = [first]
    if arguments.workers > 1:
        port = first.getsockname()[1]
        first.close()
        listening = [_bind("http_port", port, is_shared=True) for _ in range(arguments.workers)]
    for one in listening:
        one.listen(_BACKLOG)
    return listening


def _check_certificate(certificate: str | None, key: str | None) -> None:
    """Raise `ConfigurationError` where HTTPS is wanted and cannot be had."""
    if not certificate and not key:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate or "", key)
    except (OSError, ValueError) as error:
        message = f"--ssl_certfile: expected a certificate with its key, got {certificate} and {key}: {error}"
        raise ConfigurationError(message) from error


def _listen_shadow(arguments: argparse.Namespace) -> socket.socket:
    """A socket that no other pod reaches, which all workers share. Raises `ConfigurationError` where the port is taken."""
    bound = _bind("shadow_port", arguments.shadow_port, address="127.0.0.1")
    bound.listen()
    return bound


def _bind(flag: str, port: int, *, address: str = _ALL_ADDRESSES, is_shared: bool = False) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((address, port))
    except (OSError, OverflowError) as error:
        bound.close()
        reason = "one that is taken" if getattr(error, "errno", 0) == errno.EADDRINUSE else str(error)
        message = f"--{flag}: expected a free port, got {port}, {reason}"
        raise ConfigurationError(message) from error
    return bound


def _give_up(termination_log: Path, message: str) -> int:
    """Say why where people and Kubernetes look for it."""
    print(f"error: {message}", file=sys.stderr)
    note(termination_log, message)
    return EXIT_CONFIGURATION


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name == "asyncio":
        return None
    import uvloop  # noqa: PLC0415 -- the one that was chosen

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _serve(
    service: Service,
    arguments: argparse.Namespace,
    mount: Mount,
    startup: Startup,
    shadow: socket.socket | None,
    worker: int,
    listening: socket.socket,
) -> int:
    """Answer in this process, as ``worker``."""

    def on_ready() -> None:
        startup.mark("listen")
        startup.mark("ready")
        count_phases()
        logger.info("ready", extra={"worker": worker, "seconds": round(startup.seconds["ready"], 3)})

    def on_kserve() -> None:
        startup.mark("kserve")
        # What is loaded stays: it need not be looked through for garbage.
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
        return await Worker(service, arguments, mount, listening, shadow).run(on_ready, on_kserve)

    with asyncio.Runner(loop_factory=_loop_factory(arguments.event_loop)) as runner:
        return runner.run(answer())

"""Flags of a load test, beside Locust's own; each has an environment variable too, so that a Job or a workflow can set it."""

import argparse
import ipaddress
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

Shape = Literal["steady", "knee", "spike", "zero"]
MOST_USERS = 1000
DEFAULT_HOST = "http://127.0.0.1:8080"
# Users, and the pause of each between an answer and the next request; a ramp shows the knee only without pauses.
DEFAULTS: dict[str, tuple[int, float]] = {"steady": (10, 0.1), "knee": (128, 0.0), "spike": (50, 0.1), "zero": (10, 0.1)}
STEADY_SECONDS = 60

_FLAGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--shape", {"choices": tuple(DEFAULTS), "default": "steady", "help": "How load changes: evenly, doubling until the knee, a "
     "fivefold spike, or from a service that has idled to zero pods."}),
    ("--grpc-host", {"default": "", "help": "Whom gRPC users ask, HOST:PORT or https://HOST:PORT; without it there are none."}),
    ("--host-header", {"default": "", "help": "Name of the service, where --host is a gateway that goes by names."}),
    ("--model-name", {"default": "digits", "help": "Name of the model."}),
    ("--model-version", {"default": "", "help": "The version that has to answer; any one by default."}),
    ("--values", {"default": "helm/chiffre/values.yaml", "help": "Values of the chart, whose slo and "
     "test.leastAccuracy are the objectives."}),
    ("--release", {"default": "", "help": "Take the values from this release, by helm, instead."}),
    ("--namespace", {"default": "chiffre", "help": "Its namespace."}),
    ("--data-dir", {"default": "data/mnist", "help": "Folder with the MNIST files."}),
    ("--output", {"default": "build/load", "help": "Folder of the reports."}),
    ("--step-seconds", {"type": int, "default": 10, "help": "How long a step of a shape lasts."}),
    # Knative's window of a minute, its grace period of half of one, and a pod's end.
    ("--idle-seconds", {"type": int, "default": 120, "help": "How long the shape zero waits first, for pods to go; 0 where there "
     "are none."}),
    ("--pause-seconds", {"type": float, "default": None, "help": "A user's pause between an answer and the next request; 0 for "
     "the knee and 0.1 otherwise by default."}),
    ("--timeout-seconds", {"type": float, "default": 10.0, "help": "After which a request has failed; the shape zero waits four "
     "times the objective for a cold start."}),
    ("--network-ms", {"type": float, "default": 0.0, "help": "What the network between here and the service adds; p95 and p99 "
     "may be as much more."}),
    ("--open-seconds", {"type": int, "default": 10, "help": "How long the open-loop check lasts, after the run; 0 for none."}),
    ("--open-rate", {"type": float, "default": 0.0, "help": "Its requests per second; half of the best rate before by default."}),
    ("--most-requests", {"type": int, "default": 1_000_000, "help": "After which a run ends before its time."}),
    ("--allow-remote", {"action": "store_true", "help": "Send load to hosts that are neither loopback nor in a cluster."}),
)  # fmt: skip


class SettingsError(ValueError):
    """A flag that cannot be meant; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The flags above, checked."""

    shape: Shape
    grpc_host: str
    host_header: str
    model_name: str
    model_version: str
    values: Path
    release: str
    namespace: str
    data_dir: Path
    output: Path
    step_seconds: int
    idle_seconds: int
    pause_seconds: float | None
    timeout_seconds: float
    network_ms: float
    open_seconds: int
    open_rate: float
    most_requests: int
    allow_remote: bool

    @classmethod
    def read(cls, options: argparse.Namespace) -> Self:
        """From the command line. Raises `SettingsError`."""
        given = {field.name: getattr(options, field.name) for field in fields(cls)}
        # Locust sends its options to workers, which takes plain values.
        given |= {name: Path(given[name]) for name in ("values", "data_dir", "output")}
        settings = cls(**given)
        least = {
            "step_seconds": 1,
            "idle_seconds": 0,
            "timeout_seconds": 0.1,
            "network_ms": 0,
            "open_seconds": 0,
            "open_rate": 0,
            "most_requests": 1,
        }
        for name, bound in least.items():
            if not bound <= getattr(settings, name) < math.inf:
                message = f"--{name.replace('_', '-')}: expected a number of at least {bound}, got {getattr(settings, name)}"
                raise SettingsError(message)
        if (settings.pause_seconds or 0) < 0:
            message = f"--pause-seconds: expected at least 0, got {settings.pause_seconds}"
            raise SettingsError(message)
        if settings.open_rate * settings.open_seconds > settings.most_requests:
            message = f"--open-rate: for {settings.open_seconds} s, these are more requests than --most-requests"
            raise SettingsError(message)
        check_users(options.num_users)
        if options.run_time and settings.shape != "steady":
            message = f"--run-time: the shape {settings.shape} has a length of its own, see --step-seconds"
            raise SettingsError(message)
        return settings


def add_flags(parser: Any) -> None:
    """Add them to Locust's own, of which some get a default."""
    parser.set_defaults(host=DEFAULT_HOST)
    for flag, options in _FLAGS:
        variable = "LOAD_" + flag.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(flag, env_var=variable, include_in_web_ui=False, **options)


def check_users(users: int | None) -> None:
    """Raise `SettingsError` where there are too many."""
    if (users or 0) > MOST_USERS:
        message = f"--users: expected at most {MOST_USERS}, got {users}"
        raise SettingsError(message)


def check_host(host: str, *, allow_remote: bool) -> None:
    """Raise `SettingsError` for an address that is no URL, or that belongs to somebody else's machine."""
    parts = urlsplit(host if "://" in host else f"http://{host}")
    name = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not name:
        message = f"--host: expected http://HOST:PORT, got {host!r}"
        raise SettingsError(message)
    if not (allow_remote or is_near(name)):
        message = f"{name}: is neither loopback nor in a cluster; --allow-remote sends load to it all the same"
        raise SettingsError(message)


def is_near(name: str) -> bool:
    """Whether a host name is this machine's, or one that only a cluster's DNS knows."""
    if name == "localhost" or name.endswith((".localhost", ".svc", ".svc.cluster.local")):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

"""The command line: kserve's flags, as far as they mean something for a predictor, and ours.

They are written down here a second time, because kserve's own parser comes with all of kserve; a test compares the two.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from serving.batcher import MAX_QUEUED_IMAGES
from serving.codec import MAX_INSTANCES
from serving.engine import EngineName
from serving.feedback import Terms
from serving.service import MAX_BODY_BYTES, Logged
from serving.shadow import PORT

# Flags of kserve's that a predictor without a transformer, and with logs of its own, has no use for.
REFUSED = {
    "--predictor_host": "this is the predictor; a transformer names one",
    "--protocol": "both protocols are served",
    "--predictor_protocol": "both protocols are served",
    "--predictor_use_ssl": "this is the predictor; a transformer names one",
    "--predictor_request_timeout_seconds": "this is the predictor; a transformer names one",
    "--predictor_request_retries": "this is the predictor; a transformer names one",
    "--enable_predictor_health_check": "this is the predictor; a transformer names one",
    "--enable_latency_logging": "use --log_requests",
    "--access_log_format": "use --log_requests; logs are JSON",
    "--log_config_file": "logs are JSON, to standard error",
    "--configure_logging": "logs are JSON, to standard error",
    "--max_threads": "gRPC is answered by one thread, many calls at a time",
    "--max_asyncio_workers": "requests are answered by the event loop",
}
_MAX_GRPC_MESSAGE_LENGTH = 8 * 1024 * 1024


def build_parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Serve a bundle with KServe.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _add_kserve(parser.add_argument_group("as kserve has them"))
    _add_model(parser.add_argument_group("model"))
    _add_limits(parser.add_argument_group("limits and lifecycle"))
    _add_feedback(parser.add_argument_group("feedback"))
    for flag, reason in REFUSED.items():
        parser.add_argument(flag, action=_Refuse, nargs="?", const=reason, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _add_kserve(group: Any) -> None:
    group.add_argument("--http_port", type=int, default=8080, help="Port of REST, metrics and the page.")
    group.add_argument("--grpc_port", type=int, default=8081, help="Port of gRPC.")
    group.add_argument("--workers", type=_positive, default=1, help="Processes that answer.")
    group.add_argument("--enable_grpc", type=_boolean, default=True, help="Serve gRPC.")
    group.add_argument("--enable_docs_url", type=_boolean, default=False, help="Serve kserve's API description at /docs.")
    group.add_argument(
        "--event-loop", dest="event_loop", choices=("auto", "asyncio", "uvloop"), default="auto", help="Event loop."
    )
    group.add_argument(
        "--timeout-keep-alive", dest="timeout_keep_alive", type=int, default=65, help="Seconds of an idle connection."
    )
    group.add_argument("--model_name", default="digits", help="Name of the model in routes.")
    length = {"type": _positive, "default": _MAX_GRPC_MESSAGE_LENGTH}
    group.add_argument("--grpc_max_send_message_length", **length, help="Most bytes of a gRPC answer.")
    group.add_argument("--grpc_max_receive_message_length", **length, help="Most bytes of a gRPC request.")
    group.add_argument("--ssl_certfile", default=None, help="Certificate, for HTTPS.")
    group.add_argument("--ssl_keyfile", default=None, help="Its key.")


def _add_model(group: Any) -> None:
    group.add_argument("--model_dir", type=Path, default=Path("/mnt/models"), help="The bundle's directory.")
    group.add_argument(
        "--engine", choices=get_args(EngineName), default="onnx", help="ONNX Runtime, or torch where it is installed."
    )
    fast = "Answer predictions in front of kserve's app; false leaves them to it, with the same model."
    group.add_argument("--fast_path", type=_boolean, default=True, help=fast)


def _add_limits(group: Any) -> None:
    group.add_argument("--max_instances", type=_positive, default=MAX_INSTANCES, help="Most images in a request.")
    group.add_argument("--max_body_bytes", type=_positive, default=MAX_BODY_BYTES, help="Largest request body.")
    queued = "Images that may wait; more are answered with 503."
    group.add_argument("--max_queued_images", type=_positive, default=MAX_QUEUED_IMAGES, help=queued)
    drain = "After SIGTERM: how long requests that still come are answered."
    group.add_argument("--drain_seconds", type=_seconds, default=5.0, help=drain)
    group.add_argument("--grace_seconds", type=_seconds, default=20.0, help="After that: how long requests in flight may take.")
    group.add_argument("--log_requests", choices=get_args(Logged), default="failed", help="Which requests are logged.")
    watch = "Count predictions, confidence and the input profile, which tell how the model does."
    group.add_argument("--watch", type=_boolean, default=True, help=watch)
    shadow = (
        "Requests, the last ones that the fast path answered, that each process keeps in memory for a roll-out; 0 keeps none."
    )
    group.add_argument("--shadow_requests", type=_count, default=0, help=shadow)
    group.add_argument("--shadow_port", type=int, default=PORT, help="Port of 127.0.0.1 that shows them.")
    path = Path("/dev/termination-log")
    group.add_argument("--termination_log", type=Path, default=path, help="Where Kubernetes reads why a container ended.")
    group.add_argument("--startup-profile", action="store_true", help="Start, print how long each phase took, and stop.")


def _add_feedback(group: Any) -> None:
    # Labels are believed, whoever sends them: to take any is for those to decide who know who reaches the port.
    taken = "Take labels of images that were answered, at :feedback and /feedback, and have buttons for it on the page."
    group.add_argument("--feedback", type=_boolean, default=False, help=taken)
    rate = "Images of feedback that each process takes a second; more are answered with 429."
    group.add_argument("--feedback_per_second", type=_rate, default=Terms.per_second, help=rate)
    asked = "Share of the drawings, picked at random before they are answered, about which the page asks."
    group.add_argument("--feedback_asked_share", type=_share, default=Terms.asked_share, help=asked)


class _Refuse(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> NoReturn:
        del namespace, values
        parser.error(f"{option_string}: expected other flags: {self.const}")


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        message = f"expected at least 1, got {value}"
        raise argparse.ArgumentTypeError(message)
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        message = f"expected 0 or more, got {value}"
        raise argparse.ArgumentTypeError(message)
    return value


def _seconds(text: str) -> float:
    if not 0 <= (value := float(text)) < float("inf"):
        message = f"expected seconds, 0 or more, got {text}"
        raise argparse.ArgumentTypeError(message)
    return value


def _rate(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        message = f"expected a number above 0, got {text}"
        raise argparse.ArgumentTypeError(message)
    return value


def _share(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        message = f"expected a share, from 0 to 1, got {text}"
        raise argparse.ArgumentTypeError(message)
    return value


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        message = f"expected true or false, got {text}"
        raise argparse.ArgumentTypeError(message)
    return words[text.lower()]

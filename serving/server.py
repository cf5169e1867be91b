"""The server's command line, and the model in each of its processes."""

import argparse
from pathlib import Path
from typing import get_args

import kserve.model_server

from serving.codec import MAX_INSTANCES
from serving.engine import EngineName
from serving.limits import MAX_BODY_BYTES, install
from serving.predictor import DigitModel


def build_parser() -> argparse.ArgumentParser:
    """kserve's flags and ours."""
    parser = argparse.ArgumentParser(
        prog="python -m serving", description="Serve a bundle with KServe.", parents=[kserve.model_server.parser]
    )
    parser.add_argument("--model_dir", type=Path, default=Path("/mnt/models"), help="The bundle's directory.")
    parser.add_argument(
        "--engine", choices=get_args(EngineName), default="onnx", help="ONNX Runtime, or torch where it is installed."
    )
    parser.add_argument("--max_instances", type=_positive, default=MAX_INSTANCES, help="Most images in a request.")
    parser.add_argument("--max_body_bytes", type=_positive, default=MAX_BODY_BYTES, help="Largest request body.")
    # A log line a request costs more than the model does; and only V1 REST is served.
    parser.set_defaults(model_name="digits", enable_latency_logging=False, enable_grpc=False)
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        message = f"expected at least 1, got {value}"
        raise argparse.ArgumentTypeError(message)
    return value


def load_model(arguments: argparse.Namespace) -> DigitModel:
    """The loaded model, behind the limits of this process's app. Raises `BundleError`."""
    model = _WorkerModel(arguments)
    model.load()
    install(kserve.model_server.app, max_body_bytes=arguments.max_body_bytes)
    return model


class _WorkerModel(DigitModel):
    """A model that a worker process loads for itself: neither engine can be sent there."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(
            arguments.model_name, arguments.model_dir, engine=arguments.engine, max_instances=arguments.max_instances
        )
        self._arguments = arguments

    def __reduce__(self) -> tuple[object, ...]:
        return load_model, (self._arguments,)

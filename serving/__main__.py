"""Serve a bundle.

    python -m serving --model_dir build/bundle --model_name digits --http_port 8080 --workers 2

kserve's own flags hold, and those of `serving.server`. Exit code 2: the flags or the bundle must be mended first.
"""

import logging
import sys

from kserve import ModelServer

from model.bundle import BundleError
from serving.predictor import Plane
from serving.server import build_parser, load_model

EXIT_CONFIGURATION = 2

logger = logging.getLogger("kserve")


def main() -> int:
    """Load, then listen: a server that answers at all is ready."""
    arguments = build_parser().parse_args()
    try:
        model = load_model(arguments)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    server = ModelServer(
        http_port=arguments.http_port,
        workers=arguments.workers,
        enable_grpc=arguments.enable_grpc,
        enable_latency_logging=arguments.enable_latency_logging,
    )
    server.dataplane = Plane(model_registry=server.registered_models)
    logger.info("Serving %s", " ".join(f"{name}={value}" for name, value in sorted(vars(arguments).items())))
    server.start([model])
    return 0


if __name__ == "__main__":
    sys.exit(main())

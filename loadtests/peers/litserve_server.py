"""LitServe: two workers behind two API servers.

    PEER_WEIGHTS=weights.npz python -m loadtests.peers.litserve_server HTTP_PORT GRPC_PORT WORKERS

Tried: one and two workers, one and two API servers, its queue and the ZeroMQ one, batches of at most 16 within 2 ms. Two API
servers and ZeroMQ are the fastest; one worker or two makes no difference that one can measure on two cores; batches are
slower, because a request costs its way through the queue and hardly anything in the model.
"""

import sys
from typing import Any

import litserve  # type: ignore[import-not-found]  # it is in its own environment
import numpy as np

from loadtests.peers.forward import Floats, Forward


class DigitApi(litserve.LitAPI):  # type: ignore[misc]  # as above
    """The digit classifier, from images (n, 784)."""

    def setup(self, device: str) -> None:
        """Read the weights, in the worker's process."""
        del device
        self.forward = Forward()

    def decode_request(self, request: dict[str, Any]) -> Floats:
        """Images (n, 784) of a V1 request."""
        return np.array(request["instances"], np.float32)

    def predict(self, images: Floats) -> dict[str, Any]:
        """The V1 response."""
        return self.forward.v1(images)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """What `predict` gave is JSON already."""
        return output


if __name__ == "__main__":
    port, _, workers = (int(text) for text in sys.argv[1:])
    api = DigitApi(api_path="/v1/models/digits:predict")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, fast_queue=True, disable_openapi_url=True)
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=workers,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )

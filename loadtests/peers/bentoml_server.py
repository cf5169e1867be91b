"""BentoML: a service of two workers.

    PEER_WEIGHTS=weights.npz bentoml serve loadtests.peers.bentoml_server:Digits --port 3000

Tried: an ndarray argument, which BentoML builds from the JSON itself and which is as fast as lists or a little faster; a plain
method instead of a coroutine, which goes through a thread: no faster; with uvloop and httptools installed, and metrics, traces
and access log off: faster. Its batching waits for more images, and one of them is computed in less time than it waits.
"""

from typing import Any

import bentoml  # type: ignore[import-not-found]  # it is in its own environment
import numpy as np

from loadtests.peers.forward import Forward

_QUIET = {"metrics": {"enabled": False}, "logging": {"access": {"enabled": False}}, "tracing": {"sample_rate": 0.0}}


@bentoml.service(workers=2, **_QUIET)
class Digits:
    """The digit classifier, from images (n, 784)."""

    def __init__(self) -> None:
        self.forward = Forward()

    @bentoml.api(route="/v1/models/digits:predict")  # type: ignore[untyped-decorator]  # as above
    async def predict(self, instances: np.ndarray) -> dict[str, Any]:
        """The V1 response for the images in the body."""
        return self.forward.v1(instances.astype(np.float32, copy=False))

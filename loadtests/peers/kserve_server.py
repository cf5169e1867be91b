"""The stock KServe SDK: a `kserve.Model` behind `kserve.ModelServer`, with V1, V2 and gRPC.

    PEER_WEIGHTS=weights.npz python -m loadtests.peers.kserve_server --http_port 8080 --grpc_port 8081 --workers 2

Tried: `predict` as a coroutine and as a plain method, which kserve calls in place as well: no difference beyond the noise. The
logs of latency and of access are off: each would write a line a request.
"""

from typing import Any

import kserve
import numpy as np
from kserve.model_server import ModelServer

from loadtests.peers.forward import Forward


class DigitModel(kserve.Model):  # type: ignore[misc]  # kserve has no types
    """The digit classifier, from images (n, 784) in either protocol."""

    def __init__(self) -> None:
        super().__init__("digits")
        self.forward = Forward()
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """The V1 response for a V1 payload, and the V2 one for a V2 payload."""
        del headers, response_headers
        if isinstance(payload, dict):
            return self.forward.v1(np.array(payload["instances"], np.float32))
        probabilities = self.forward(payload.inputs[0].as_numpy())
        labels = probabilities.argmax(axis=1)
        outputs = []
        for name, datatype, array in (("labels", "INT64", labels), ("probabilities", "FP32", probabilities)):
            output = kserve.InferOutput(name, list(array.shape), datatype)
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return kserve.InferResponse(
            response_id=payload.id,
            model_name="digits",
            infer_outputs=outputs,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    ModelServer(enable_latency_logging=False).start([DigitModel()])

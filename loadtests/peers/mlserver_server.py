"""MLServer with a custom runtime: V2 in JSON, gRPC, and V1 by its custom handler.

    PEER_WEIGHTS=weights.npz python -m loadtests.peers.mlserver_server HTTP_PORT GRPC_PORT WORKERS

Its workers are behind queues of the one process that listens. Tried: two of them, and none. None is faster by two times with 64
connections and by four with one, since the queue costs more than the model; so it is one process, whatever WORKERS says. A
handler that is given the request's bytes, and orjson, is faster by up to two times than one that is given the parsed body.
Metrics, access log and gzip are off. It takes no binary tensors by REST, and raw ones by gRPC.
"""

import asyncio
import sys

import numpy as np
import orjson
from fastapi import Request, Response
from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.handlers import custom_handler  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]

from loadtests.peers.forward import Forward


class DigitRuntime(MLModel):  # type: ignore[misc]  # it has no types here
    """The digit classifier, from images (n, 784) in either protocol."""

    async def load(self) -> bool:
        """Read the weights."""
        self.forward = Forward()
        return True

    @custom_handler(rest_path="/v1/models/digits:predict")  # type: ignore[untyped-decorator]
    async def v1(self, request: Request) -> Response:
        """The V1 response for the images in the body."""
        images = np.array(orjson.loads(await request.body())["instances"], np.float32)
        return Response(orjson.dumps(self.forward.v1(images)), media_type="application/json")

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The V2 response."""
        probabilities = self.forward(NumpyCodec.decode_input(payload.inputs[0]))
        # Its codec would make a shape (n, 1) of labels (n,).
        labels = NumpyCodec.encode_output("labels", probabilities.argmax(axis=1))
        labels.shape = [len(probabilities)]
        outputs = [labels, NumpyCodec.encode_output("probabilities", probabilities)]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)


async def main(http_port: int, grpc_port: int) -> None:
    """Serve until a signal."""
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_endpoint=None,
        parallel_workers=0,
        load_models_at_startup=False,
        gzip_enabled=False,
        logging_settings={"version": 1, "disable_existing_loggers": True},
    )
    await MLServer(settings).start([ModelSettings(name="digits", implementation=DigitRuntime)])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))

"""FastAPI with orjson, two uvicorn workers on uvloop and httptools.

    PEER_WEIGHTS=weights.npz python -m loadtests.peers.fastapi_server HTTP_PORT GRPC_PORT WORKERS

Tried: a plain `def` endpoint, which goes through a thread, and FastAPI's own parsing and validation of the body and the answer:
both are slower than bytes in and bytes out.
"""

import sys

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from loadtests.peers.forward import Forward

forward = Forward()
app = FastAPI(openapi_url=None)


@app.post("/v1/models/digits:predict")
async def predict(request: Request) -> Response:
    """The V1 response for the images in the body."""
    images = np.array(orjson.loads(await request.body())["instances"], np.float32)
    return Response(orjson.dumps(forward.v1(images)), media_type="application/json")


if __name__ == "__main__":
    port, _, workers = (int(text) for text in sys.argv[1:])
    uvicorn.run(
        "loadtests.peers.fastapi_server:app",
        port=port,
        workers=workers,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )

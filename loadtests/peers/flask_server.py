"""Flask as one writes it on the first day, behind gunicorn with two workers.

    PEER_WEIGHTS=weights.npz gunicorn --workers 2 --worker-class gthread --threads 32 loadtests.peers.flask_server:app

Tried: gunicorn's sync workers, which end each connection after an answer, so that nothing is kept alive; and threads: 2, 4 and 32
a worker. With 32 it answers most requests a second; with one connection the number makes no difference.
"""

from typing import Any

import numpy as np
from flask import Flask, Response, jsonify, request

from loadtests.peers.forward import Forward

forward = Forward()
app = Flask(__name__)


@app.post("/v1/models/digits:predict")
def predict() -> Response:
    """The V1 response for the images in the body."""
    body: Any = request.get_json()
    images = np.array(body["instances"], dtype=np.float32)
    return jsonify(forward.v1(images))

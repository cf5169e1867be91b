"""Real digits as requests of each kind, made when they are first asked for.

    questions = Questions(Path("data/mnist"), "digits")
    question = questions.draw(Kind.V1)

Images are drawn with replacement from the 10,000 test images, so that the answers to n of them that are right follow a binomial
distribution around the model's accuracy on those images.
"""

import io
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from loadtests.peers.wire import GRPC_PATH, LENGTH_HEADER, grpc_request, v2_body
from loadtests.slo.kinds import Kind
from model import mnist
from model.bundle import Labels
from serving.rpc import load_messages

# Those that `loadtests.peers.wire` looks for: importing all of kserve would read Locust's command line.
load_messages()
# Each pixel there is, as it is written in JSON; a load generator has no time to write numbers.
_NUMBERS = [str(value) for value in np.arange(256, dtype=np.float32) / np.float32(255)]
# Images of one V2 request, whose tensors are what makes it binary.
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request: ``body`` is a message where it is sent by gRPC, and bytes otherwise; ``indices`` (n,) are its images."""

    kind: Kind
    path: str
    body: Any
    headers: dict[str, str]
    indices: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Questions:
    """Those about one model. Raises `DataError` where the data files are missing or altered."""

    data_dir: Path
    model_name: str
    _images: npt.NDArray[np.uint8] = field(init=False)
    labels: Labels = field(init=False)
    _made: dict[tuple[Kind, int], Question] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Read the test images."""
        images, labels = mnist.read(self.data_dir, "t10k")
        object.__setattr__(self, "_images", images)
        object.__setattr__(self, "labels", labels)

    def draw(self, kind: Kind) -> Question:
        """One of `kind` about images taken at random."""
        index = random.randrange(len(self.labels))  # noqa: S311 -- which image is asked is no secret
        if (kind, index) not in self._made:
            self._made[kind, index] = self._make(kind, index)
        return self._made[kind, index]

    def _make(self, kind: Kind, index: int) -> Question:
        indices = np.array([index])
        if kind is Kind.V2:
            # A batch is always the same, but has no neighbours in common with another.
            indices = np.random.default_rng(index).integers(len(self.labels), size=BATCH)
        path, body, headers = self._write(kind, self._images[indices])
        return Question(kind=kind, path=path, body=body, headers=headers, indices=indices)

    def _write(self, kind: Kind, images: npt.NDArray[np.uint8]) -> tuple[str, Any, dict[str, str]]:
        pixels = mnist.scale(images).reshape(len(images), -1)
        predict = f"/v1/models/{self.model_name}:predict"
        if kind is Kind.V1:
            numbers = ",".join(_NUMBERS[pixel] for pixel in images.tobytes())
            return predict, f'{{"instances":[[{numbers}]]}}'.encode(), {"content-type": "application/json"}
        if kind is Kind.IMAGE:
            content = io.BytesIO()
            Image.fromarray(images[0]).save(content, "PNG")
            return predict, content.getvalue(), {"content-type": "image/png"}
        if kind is Kind.V2:
            body, length = v2_body(pixels)
            headers = {"content-type": "application/octet-stream", LENGTH_HEADER: str(length)}
            return f"/v2/models/{self.model_name}/infer", body, headers
        request = grpc_request(pixels)
        request.model_name = self.model_name
        return GRPC_PATH, request, {}

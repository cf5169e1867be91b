"""The stock KServe SDK with torch: a `kserve.Model` that loads a checkpoint, behind `kserve.ModelServer`.

python stock_server.py --model_name digits --model_dir /mnt/models
"""

print("begun", flush=True)

import argparse  # noqa: E402 -- the imports are part of what is measured
import json  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import kserve  # noqa: E402
import torch  # noqa: E402
from kserve.model_server import ModelServer, parser  # noqa: E402

from model.network import load_network  # noqa: E402


class DigitModel(kserve.Model):  # type: ignore[misc]  # kserve has no types
    """The digit classifier, by V1."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(name)
        self._directory = directory

    def load(self) -> bool:
        """The network of the checkpoint, with the arguments that stand beside it."""
        manifest = json.loads((self._directory / "bundle.json").read_text())
        self._network = load_network(self._directory / "model.ckpt", manifest["network"])
        self._temperature = manifest["temperature"]
        self.ready = True
        return True

    async def predict(self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None) -> dict[str, Any]:
        """Labels and probabilities."""
        del headers, response_headers
        with torch.inference_mode():
            logits = self._network(torch.tensor(payload["instances"], dtype=torch.float32))
            probabilities = torch.softmax(logits / self._temperature, dim=1)
        found = zip(probabilities.argmax(dim=1).tolist(), probabilities.tolist(), strict=True)
        return {"predictions": [{"label": label, "probabilities": row} for label, row in found]}


def main() -> None:
    """Serve, by kserve's own flags and one for the bundle."""
    flags = argparse.ArgumentParser(parents=[parser], conflict_handler="resolve")
    flags.add_argument("--model_dir", type=Path, default=Path("/mnt/models"), help="The bundle's directory.")
    arguments = flags.parse_args()
    model = DigitModel(arguments.model_name, arguments.model_dir)
    model.load()
    ModelServer().start([model])


if __name__ == "__main__":
    main()

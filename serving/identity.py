"""What serves: the model's name and version, and where it came from."""

from dataclasses import dataclass
from typing import Any

from model.bundle import Bundle


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A served bundle, as answers, metadata and metrics name it."""

    name: str
    version: str
    run_id: str
    git_revision: str
    engine: str

    @classmethod
    def of(cls, name: str, bundle: Bundle, engine: str) -> "Identity":
        """The identity of ``bundle`` served under ``name``."""
        lineage = bundle.lineage
        return cls(
            name=name,
            version=bundle.version,
            run_id=lineage.run_id or "",
            git_revision=lineage.git_revision or "",
            engine=engine,
        )

    @property
    def platform(self) -> str:
        """The protocol's name for what the model runs on."""
        return {"onnx": "onnxruntime_onnx", "torch": "pytorch"}[self.engine]

    @property
    def headers(self) -> dict[str, str]:
        """What stands in the headers of every answer."""
        lineage = {"x-model-version": self.version, "x-model-run-id": self.run_id}
        # They come from a file.
        return {name: "".join(c for c in value if c.isascii() and c.isprintable()) for name, value in lineage.items()}

    def metadata(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
        """The model's metadata by the V2 protocol; ``properties`` is an addition of ours."""
        properties = {"run_id": self.run_id, "git_revision": self.git_revision, "engine": self.engine}
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": self.platform,
            "inputs": inputs,
            "outputs": outputs,
            "properties": properties,
        }

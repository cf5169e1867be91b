"""The KServe predictor: a bundle behind kserve's ``Model``, and the plane that hands it request bodies as they came."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from kserve import Model
from kserve.errors import ModelNotFound
from kserve.protocol.dataplane import DataPlane
from starlette.exceptions import HTTPException

from model.bundle import Bundle, Floats
from serving.codec import IMAGE_TYPES, MAX_INSTANCES, FieldError, decode, encode, parse_instances, parse_json
from serving.engine import Engine, EngineName

# Larger bodies, and pictures, are decoded in a thread, so that probes and other requests are answered meanwhile.
_THREAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Body:
    """A request body as it came, for our own codec to read."""

    content: bytes


class UnknownModel(ModelNotFound):  # type: ignore[misc]  # kserve has no types
    """A request for a model that is not served here; the message names those that are."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(name)
        self.reason = f"model: expected {' or '.join(known)}, got {name[:40]!r}"


class DigitModel(Model):  # type: ignore[misc]  # kserve has no types
    """A digit classifier, ready once its bundle is loaded and has answered once."""

    def __init__(self, name: str, model_dir: Path, *, engine: EngineName = "onnx", max_instances: int = MAX_INSTANCES) -> None:
        super().__init__(name)
        self.model_dir, self.engine_name, self.max_instances = model_dir, engine, max_instances
        self._engine: Engine | None = None

    def load(self) -> bool:
        """Verify and load the bundle. Raises `BundleError`."""
        self._engine = Engine(Bundle.load(self.model_dir), self.engine_name)
        self.ready = True
        return True

    async def preprocess(self, payload: Any, headers: dict[str, str] | None = None) -> Floats:
        """Images (n, 28, 28) of a V1 request. Raises `FieldError`."""
        if not isinstance(payload, Body):
            # The data of a cloud event.
            return parse_instances(payload, max_instances=self.max_instances)
        content_type = (headers or {}).get("content-type", "")
        is_slow = len(payload.content) > _THREAD_BYTES or b'"b64"' in payload.content or b"\\" in payload.content
        arguments = (payload.content, content_type, self.max_instances)
        if is_slow or content_type.lower().startswith(IMAGE_TYPES):
            return await asyncio.to_thread(decode, *arguments)
        return decode(*arguments)

    def predict(self, images: Floats, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """The V1 response for ``images`` (n, 28, 28)."""
        del headers
        assert self._engine, "kserve asks no model that is not ready"
        bundle = self._engine.bundle
        return encode(self._engine.predict(images), bundle.labels, bundle.version)


class Plane(DataPlane):  # type: ignore[misc]  # kserve has no types
    """kserve's data plane, except that V1 bodies reach the model unparsed, so that each error names a field."""

    def decode(self, body: bytes, headers: dict[str, str], *arguments: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """What the model is given, and the attributes of a cloud event. Raises `FieldError`."""
        del arguments, options
        if headers.get("content-type", "").startswith("application/cloudevents"):
            event = parse_json(body)
            if not isinstance(event, dict) or "data" not in event:
                field, expected = "data", "in a cloud event, a JSON object with a list of instances"
                raise FieldError(field, expected, "none")
            return event.pop("data"), event
        return Body(body), {name.removeprefix("ce-"): value for name, value in headers.items() if name.startswith("ce-")}

    async def model_ready(self, model_name: str, disable_predictor_health_check: bool = False) -> bool:
        """Whether the model can answer. Raises `UnknownModel`, and `HTTPException` for a verb that is not POST."""
        known = list(self.model_registry.get_models())
        if model_name.partition(":")[0] in known and model_name.endswith(":predict"):
            # kserve's routes split the verb off for POST alone.
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED)
        if model_name not in known:
            raise UnknownModel(model_name, known)
        return bool(await super().model_ready(model_name, disable_predictor_health_check))

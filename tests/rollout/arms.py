"""Two real servers of different models, as the two sides of a roll-out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from model.bundle import Bundle, Floats, Labels
from rollout.evidence import Pairs
from rollout.probe import Arms
from rollout.questions import ProtocolName
from serving.engine import Engine
from tests.drill.challengers import alter
from tests.processes import Server
from tests.rollout.gateway import Gateway

CHAMPION, CHALLENGER = "prev-digits-predictor.chiffre.localhost", "latest-digits-predictor.chiffre.localhost"


def reweigh(bundle: Bundle, directory: Path, change: Callable[[np.ndarray], np.ndarray]) -> Bundle:
    """A bundle with other weights in the graph that is served."""

    def write(source: Path, target: Path) -> None:
        model = onnx.load(source)
        for weights in model.graph.initializer:
            values = numpy_helper.to_array(weights)
            if values.ndim == 2:
                weights.CopyFrom(numpy_helper.from_array(change(values).astype(values.dtype), weights.name))
        onnx.save(model, target)

    return alter(bundle, directory, write)


def disturb(weights: np.ndarray) -> np.ndarray:
    """Weights that give other answers now and then."""
    return weights + np.random.default_rng(0).normal(0, weights.std(), weights.shape)


def arms_of(champion: Server, challenger: Server, bundles: tuple[Bundle, Bundle], protocol: ProtocolName, **more: Any) -> Arms:
    """Both asked at their own addresses."""
    hosts = [server.grpc_address if protocol == "grpc" else server.url.partition("://")[2] for server in (champion, challenger)]
    return Arms(
        **{
            "gateway": "",
            "champion_host": hosts[0],
            "challenger_host": hosts[1],
            "model_name": "digits",
            "champion_version": bundles[0].version,
            "challenger_version": bundles[1].version,
            "protocol": protocol,
            **more,
        }
    )


def arms_behind(gateway: Gateway, bundles: tuple[Bundle, Bundle], **more: Any) -> Arms:
    """Both asked by their names."""
    return Arms(
        **{
            "gateway": gateway.url,
            "champion_host": CHAMPION,
            "challenger_host": CHALLENGER,
            "model_name": "digits",
            "champion_version": bundles[0].version,
            "challenger_version": bundles[1].version,
            **more,
        }
    )


def expected_pairs(bundles: tuple[Bundle, Bundle], images: Floats, labels: Labels, failing: Labels | None = None) -> Pairs:
    """What the engines say of the images by themselves; those ``failing`` get no answer from the challenger."""
    champion, challenger = (Engine(bundle).predict(images).argmax(axis=1) for bundle in bundles)
    if failing is not None:
        challenger[failing] = -1
    first, second = champion == labels, challenger == labels
    return Pairs(
        both_right=int((first & second).sum()),
        champion_only=int((first & ~second).sum()),
        challenger_only=int((~first & second).sum()),
        both_wrong=int((~first & ~second).sum()),
        differing=int(((champion != challenger) & (challenger != -1)).sum()),
    )

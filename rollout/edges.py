"""The real edges of a command: Helm, the cluster and the registry."""

import argparse
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from rollout.cluster import Cluster
from rollout.errors import RolloutError
from rollout.interruption import Interruption
from rollout.location import Locator
from rollout.release import Release
from rollout.report import say
from rollout.versions import Versions

_READY_SECONDS = 300.0


class Nobody:
    """In the place of a registry, where none was named."""

    def champion(self, name: str) -> str:
        """Raises `RolloutError`."""
        raise _unnamed(name)

    def move_champion(self, name: str, number: str) -> None:
        """Raises `RolloutError`."""
        del number
        raise _unnamed(name)


def _unnamed(name: str) -> RolloutError:
    return RolloutError(f"tracking_uri: expected MLflow's address, there or in MLFLOW_TRACKING_URI, to ask for {name}")


@dataclass(frozen=True, kw_only=True)
class Edges:
    """All of them; ``versions`` is None where no registry was named, and ``names`` stands in its place."""

    release: Release
    cluster: Cluster
    versions: Versions | None
    names: Versions | Nobody
    locator: Locator
    interruption: Interruption


@contextmanager
def edges(options: argparse.Namespace) -> Iterator[Edges]:
    """Those of a command, once the release is known to be one that a roll-out can have. Raises `RolloutError`."""
    interruption = Interruption()
    interruption.install()
    with ExitStack() as stack:
        cluster = stack.enter_context(closing(Cluster(options.namespace)))
        chart = getattr(options, "chart", "")
        release = Release(options.release, options.namespace, chart, uninterrupted=interruption)
        release.history()
        cluster.refuse_other_modes(options.release)
        versions = None
        if options.tracking_uri:
            environment = {**os.environ, "MLFLOW_TRACKING_URI": options.tracking_uri}
            versions = stack.enter_context(closing(Versions(environment)))
        ready_seconds = getattr(options, "ready_seconds", _READY_SECONDS)
        names = versions or Nobody()
        locator = Locator(release, cluster, names, ready_seconds=ready_seconds, say=say)
        yield Edges(release=release, cluster=cluster, versions=versions, names=names, locator=locator, interruption=interruption)

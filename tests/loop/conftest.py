"""What the loop has: the cluster, with a registry whose first version is the champion."""

from tests.e2e.conftest import cluster, registry, training

__all__ = ["cluster", "registry", "training"]

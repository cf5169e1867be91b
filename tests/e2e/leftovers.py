"""What there is of a release, to see that nothing stays behind."""

from tests.e2e.cluster import Cluster

# What comes and goes by itself, or says what was.
_PASSING = ("events", "pods.metrics")


def objects(cluster: Cluster, namespace: str) -> set[str]:
    """Kind and name of everything in a namespace, and of the whole cluster's storage containers."""
    listed = cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
    kinds = [kind for kind in listed if not kind.startswith(_PASSING)]
    found = cluster.kubectl("get", ",".join(kinds), "--namespace", namespace, "--output=name", "--ignore-not-found")
    containers = cluster.kubectl("get", "clusterstoragecontainers.serving.kserve.io", "--output=name")
    return set(found.split()) | {name for name in containers.split() if f"/{namespace}-" in name}


def await_nothing_but(cluster: Cluster, namespace: str, before: set[str], seconds: float = 90) -> None:
    """Until what was not there ``before`` is gone. Raises AssertionError with what is left."""
    left: set[str] = set()

    def is_gone() -> bool:
        left.clear()
        left.update(objects(cluster, namespace) - before)
        return not left

    try:
        cluster.wait("everything to go", is_gone, seconds, namespace)
    except AssertionError as error:
        message = f"left behind: {', '.join(sorted(left))}\n{error}"
        raise AssertionError(message) from None

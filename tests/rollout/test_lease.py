"""Who may roll out a release: one at a time, and the next where the last one died."""

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from rollout.cluster import Cluster
from rollout.lease import Lease, LeaseError
from tests.rollout.apiserver import Store, api_server

NAME = ("leases", "chiffre", "rollout-digits")


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def api(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with api_server(store, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        cluster = Cluster("chiffre")
        yield cluster.api
        cluster.close()


def hold(api: Any, holder: str, *, age_seconds: float) -> None:
    """As another process left it."""
    renewed = datetime.now(UTC) - timedelta(seconds=age_seconds)
    spec = client.V1LeaseSpec(holder_identity=holder, lease_duration_seconds=45, renew_time=renewed)
    lease = client.V1Lease(metadata=client.V1ObjectMeta(name=NAME[2]), spec=spec)
    client.CoordinationV1Api(api).create_namespaced_lease("chiffre", lease)


def test_it_is_there_while_it_is_held(api: Any, store: Store) -> None:
    with Lease(api, "digits", "chiffre") as lease:
        lease.verify()
        held = store.objects[NAME]["spec"]["holderIdentity"]
        assert held.startswith(f"{socket.gethostname()}/{os.getpid()}/")
        with Lease(api, "others", "chiffre"):
            pass
        with pytest.raises(LeaseError, match="another roll-out is on, by "), Lease(api, "digits", "chiffre"):
            pass
    assert NAME not in store.objects


def test_another_machines_is_refused_until_it_lapses(api: Any, store: Store) -> None:
    hold(api, "elsewhere/17/4711", age_seconds=30)
    with pytest.raises(LeaseError, match=r"by elsewhere/17 \(host/process\); its lease rollout-digits lapses at "):
        Lease(api, "digits", "chiffre").__enter__()
    del store.objects[NAME]
    hold(api, "elsewhere/17/4711", age_seconds=50)
    with Lease(api, "digits", "chiffre"):
        assert "elsewhere" not in store.objects[NAME]["spec"]["holderIdentity"]


def test_that_of_a_process_of_this_machine_that_is_gone_is_taken_at_once(api: Any) -> None:
    # Its number may be another's by now: this one began at another time.
    hold(api, f"{socket.gethostname()}/{os.getpid()}/1", age_seconds=0)
    with Lease(api, "digits", "chiffre") as lease:
        lease.verify()


def test_what_somebody_else_took_meanwhile_is_left_alone(api: Any, store: Store) -> None:
    with Lease(api, "digits", "chiffre"):
        store.objects[NAME]["spec"]["holderIdentity"] = "elsewhere/17/4711"
    assert store.objects[NAME]["spec"]["holderIdentity"] == "elsewhere/17/4711"


def test_a_cluster_that_is_away_is_said(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with api_server(store, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        cluster = Cluster("chiffre")
    with pytest.raises(LeaseError, match=r"^lease rollout-digits in namespace chiffre: "):
        Lease(cluster.api, "digits", "chiffre").__enter__()
    cluster.close()

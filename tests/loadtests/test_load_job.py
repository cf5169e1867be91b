"""The load test as a Job: its manifest, and Locust with its flags on nothing but the files that its image has."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from model.demo import free_port
from tests.k8s.overlays import Overlay, build
from tests.k8s.security import violations
from tests.processes import ROOT
from tests.schemas import check
from tests.test_image import rests

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def overlay() -> Overlay:
    return build(ROOT / "loadtests" / "k8s")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image has in /app."""
    folder = tmp_path_factory.mktemp("app")
    for rest in rests("COPY", "load-code"):
        *sources, target = rest.split()
        for source in sources:
            found, path = ROOT / source, folder / target
            if found.is_dir():
                shutil.copytree(found, path, ignore=shutil.ignore_patterns("__pycache__"))
                continue
            path = path / found.name if target.endswith("/") else path
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, path)
    return folder


def test_the_job_is_one_and_is_restricted(overlay: Overlay) -> None:
    (job,) = overlay.manifests
    check(job)
    assert job["metadata"]["namespace"] == "chiffre"
    assert violations(overlay.pod("chiffre-load")) == []
    assert job["spec"]["backoffLimit"] == 0
    (container,) = overlay.pod("chiffre-load")["containers"]
    assert container["image"] == f"chiffre-load:{VERSION}"
    user, group = re.findall(r"(\d+):(\d+)", rests("USER", "load")[0])[0]
    context = overlay.pod("chiffre-load")["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))


def test_the_image_has_all_that_is_imported(app: Path) -> None:
    code = (
        "import sys, loadtests.locustfile; print(*(getattr(m, '__file__', None) for m in list(sys.modules.values())), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=app, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    own = [line for line in done.stdout.splitlines() if re.search(r"/(loadtests|model|serving)/[\w/]+\.py$", line)]
    assert len(own) > 15
    assert all(line.startswith(str(app)) for line in own if "site-packages" not in line), own


def test_its_flags_are_locusts(overlay: Overlay, app: Path, tmp_path: Path) -> None:
    """Where nobody is, since what a service takes is no matter of a test; values and data have been read by then."""
    (container,) = overlay.pod("chiffre-load")["containers"]
    flags = [flag for flag in container["args"] if not flag.startswith("--host=")]
    assert len(flags) == len(container["args"]) - 1
    nowhere = f"http://127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        "loadtests/locustfile.py",
        *flags,
        "--host",
        nowhere,
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=app, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert f"error: {nowhere}: no right answer" in done.stderr
    assert (tmp_path / "summary.md").exists()


def test_what_the_job_asks_is_in_the_cluster(overlay: Overlay) -> None:
    (container,) = overlay.pod("chiffre-load")["containers"]
    (host,) = [flag for flag in container["args"] if flag.startswith("--host=")]
    assert host == "--host=http://digits-predictor.chiffre.svc.cluster.local"

"""Which changes are tried on a cluster, and which are deployed: all that what runs there is made of."""

import ast
import re
from collections.abc import Iterator

import yaml

from tests.processes import ROOT
from tests.workflows.workflows import GITHUB, load, steps


def filters() -> tuple[list[str], list[str]]:
    """The paths whose changes go to a cluster for tests, and those whose changes are deployed."""
    (step,) = [step for step in steps() if step.uses.startswith("dorny/paths-filter@")]
    (cluster,) = yaml.safe_load(step.content["with"]["filters"]).values()
    return cluster, load(GITHUB / "workflows" / "deploy.yml")["on"]["push"]["paths"]


def is_covered(path: str, patterns: list[str]) -> bool:
    """By a pattern for that file or folder, or for one that it is in."""
    folders = tuple(pattern.removesuffix("**") for pattern in patterns if pattern.endswith("/**"))
    return path in patterns or f"{path}/".startswith(folders)


def files_of_make() -> Iterator[str]:
    yield "Makefile"
    yield from re.findall(r"^include (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)


def files_of_images() -> Iterator[str]:
    """What a build sees."""
    yield from ("Dockerfile", ".dockerignore")
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for sources in copied:
        yield from sources.split()


def files_of_tests(*folders: str) -> set[str]:
    """Their modules, all of ours that those import, and what pytest reads before them."""
    found = set()
    waiting = [path for folder in folders for path in (ROOT / folder).glob("*.py")]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            waiting += [file for name in names if (file := ROOT.joinpath(*name.split(".")).with_suffix(".py")).is_file()]
    return {str(path.relative_to(ROOT)) for path in (*found, ROOT / "tests" / "conftest.py")}


def test_the_paths_of_filters_are_there() -> None:
    cluster, merged = filters()
    for pattern in (*cluster, *merged):
        assert list(ROOT.glob(pattern)), pattern
    # Whatever a deploy takes to a cluster has been on one before.
    assert set(merged) <= set(cluster)


def test_a_change_of_what_runs_on_the_cluster_for_tests_is_tried_there() -> None:
    cluster, _ = filters()
    e2e = GITHUB / "workflows" / "e2e.yml"
    words = [word for step in steps() if step.file == e2e for word in (step.uses or step.script).split()]
    named = {word.removeprefix("./") for word in words if "/" in word and (ROOT / word).exists()}
    assert {".github/actions/environment", "helm/chiffre", "loadtests/locustfile.py"} <= named
    wanted = {
        str(e2e.relative_to(ROOT)),
        *named,
        *files_of_make(),
        *files_of_images(),
        *files_of_tests("tests/e2e", "tests/drill"),
    }
    assert {"delivery.mk", "data/mnist", "tests/load.py", "tests/http1.py"} <= wanted
    assert not {path for path in wanted if not is_covered(path, cluster)}


def test_a_change_of_what_is_in_an_image_is_deployed() -> None:
    _, merged = filters()
    # What is only in the image of load tests aside, which is not deployed.
    assert not {path for path in files_of_images() if not is_covered(path, merged) and not path.startswith("loadtests/")}

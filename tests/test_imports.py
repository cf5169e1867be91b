"""Who may import whom: serving takes of model the bundle and, in one engine, the network; model takes nothing of serving."""

import ast
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return found | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}


def of(package: str) -> dict[str, set[str]]:
    return {str(path.relative_to(ROOT)): imports(path) for path in sorted((ROOT / package).rglob("*.py"))}


def test_serving_imports_only_the_bundle_of_model() -> None:
    for name, modules in of("serving").items():
        allowed = {"model.bundle", "model.manifest"} | ({"model.network"} if name == "serving/engine.py" else set())
        assert {module for module in modules if module.split(".")[0] == "model"} <= allowed, name
        heavy = {"lightning", "pytorch_lightning", "mlflow", "sklearn"} | ({"torch"} if name != "serving/engine.py" else set())
        assert not {module for module in modules if module.split(".")[0] in heavy}, name


def test_model_never_imports_serving() -> None:
    for name, modules in of("model").items():
        assert not {module for module in modules if module.split(".")[0] == "serving"}, name


def test_the_bundle_needs_only_the_standard_library_and_numpy() -> None:

    found = of("model")
    modules = found["model/bundle.py"] | found["model/manifest.py"]
    outside = {module for module in modules if module.split(".")[0] not in sys.stdlib_module_names}
    assert outside == {"numpy", "numpy.typing", "model.manifest"}
    assert (ROOT / "model" / "__init__.py").read_text() == ""


def test_a_roll_out_needs_nothing_that_trains() -> None:
    code = "import sys, rollout.commands; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert not {"mlflow", "pytorch_lightning", "torch"} & set(done.stdout.split())


def test_what_runs_before_every_start_needs_only_the_standard_library() -> None:
    code = "import sys, serving.storage; print(*{name.partition('.')[0] for name in sys.modules})"
    # Without site-packages, and so without what their .pth files import.
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert set(done.stdout.split()) - set(sys.stdlib_module_names) == {"__main__", "model", "serving"}

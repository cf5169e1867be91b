import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.bundle import Bundle, BundleError, Registration, probabilities
from model.network import load_network
from serving.engine import Engine


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    shutil.copytree(bundle.directory, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_bundle_holds_what_design_asks_for(bundle: Bundle) -> None:
    assert bundle.labels == tuple(range(10))
    assert bundle.input_shape == (28, 28)
    assert bundle.onnx_max_abs_difference < 1e-4
    assert bundle.metrics["test_accuracy"] > 0.95
    assert bundle.lineage.run_id
    assert len(bundle.lineage.data_digest) == 64
    assert set(bundle.files) == {"model.ckpt", "model.onnx"}
    assert bundle.profile.images == 5_000


def test_load_gives_back_what_was_saved(bundle: Bundle, tmp_path: Path) -> None:
    changed = replace(bundle, temperature=2.5)
    saved = changed.save(tmp_path / "new", checkpoint=bundle.checkpoint_path, onnx=bundle.onnx_path)
    assert saved == Bundle.load(tmp_path / "new") == changed
    assert saved.digest != bundle.digest


def test_save_replaces_a_bundle_whole_and_leaves_nothing_else(bundle: Bundle, copy: Path) -> None:
    Bundle.load(copy).register(Registration(name="digits", version="3"))
    assert Bundle.load(copy).version == "3"
    bundle.save(copy, checkpoint=bundle.checkpoint_path, onnx=bundle.onnx_path)
    assert Bundle.load(copy).version == bundle.digest[:12]
    assert [path.name for path in copy.parent.iterdir()] == ["bundle"]


def test_a_failed_save_leaves_the_old_bundle(bundle: Bundle, copy: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bundle.save(copy, checkpoint=copy / "missing.ckpt", onnx=bundle.onnx_path)
    assert Bundle.load(copy) == bundle
    assert [path.name for path in copy.parent.iterdir()] == ["bundle"]


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def corrupt(directory: Path) -> None:
        manifest = json.loads((directory / "bundle.json").read_text())
        change(manifest)
        (directory / "bundle.json").write_text(json.dumps(manifest))

    return corrupt


def set_field(name: str, value: Any) -> Callable[[Path], None]:
    return edit(lambda manifest: manifest.__setitem__(name, value))


def drop_field(name: str) -> Callable[[Path], None]:
    return edit(lambda manifest: manifest.pop(name))


def flip_byte(name: str) -> Callable[[Path], None]:
    def corrupt(directory: Path) -> None:
        content = bytearray((directory / name).read_bytes())
        content[len(content) // 2] ^= 1
        (directory / name).write_bytes(bytes(content))

    return corrupt


def truncate(name: str) -> Callable[[Path], None]:
    def corrupt(directory: Path) -> None:
        (directory / name).write_bytes((directory / name).read_bytes()[:-10])

    return corrupt


def empty_list(directory: Path) -> None:
    (directory / "bundle.json").write_text("[]")


def remove(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


CORRUPTIONS: list[tuple[str, Callable[[Path], None], str]] = [
    ("onnx altered", flip_byte("model.onnx"), r"model\.onnx: sha256 is .* bundle\.json says"),
    ("onnx truncated", truncate("model.onnx"), r"model\.onnx: sha256"),
    ("checkpoint altered", flip_byte("model.ckpt"), r"model\.ckpt: sha256"),
    ("onnx missing", remove("model.onnx"), r"model\.onnx: missing"),
    ("checkpoint missing", remove("model.ckpt"), r"model\.ckpt: missing"),
    ("manifest missing", remove("bundle.json"), r"bundle\.json: missing"),
    ("manifest truncated", truncate("bundle.json"), r"bundle\.json: cannot be read as JSON"),
    (
        "manifest a list",
        empty_list,
        r"expected a JSON object, got \[\]",
    ),
    ("other format", set_field("format_version", 2), r"bundle\.json: format_version: expected 1, got 2"),
    ("other shape", set_field("input_shape", [32, 32]), r"bundle\.json: input_shape: expected \[28, 28\], got \[32, 32\]"),
    ("other labels", set_field("labels", ["a"]), r"bundle\.json: labels"),
    ("other range", set_field("input_range", [0, 255]), r"bundle\.json: input_range"),
    ("no temperature", drop_field("temperature"), r"bundle\.json: temperature: missing"),
    ("temperature 0", set_field("temperature", 0), r"bundle\.json: temperature: expected a number above 0, got 0"),
    ("temperature a string", set_field("temperature", "1"), r"bundle\.json: temperature: expected a number above 0"),
    ("temperature true", set_field("temperature", True), r"bundle\.json: temperature"),
    ("metric NaN", set_field("metrics", {"accuracy": float("nan")}), r"bundle\.json: metrics\.accuracy: expected a number"),
    ("network null", set_field("network", None), r"bundle\.json: network: expected a JSON object, got null"),
    ("no lineage", drop_field("lineage"), r"bundle\.json: lineage: missing"),
    (
        "short profile",
        edit(lambda m: m["profile"]["class_counts"].pop()),
        r"bundle\.json: profile\.class_counts: expected 10 counts",
    ),
    (
        "edges do not fit",
        edit(lambda m: m["profile"]["histograms"]["offset"]["edges"].pop()),
        r"bundle\.json: profile\.histograms\.offset\.edges: expected \d+ rising numbers",
    ),
    ("digest missing", edit(lambda m: m["files"].pop("model.onnx")), r"bundle\.json: files\.model\.onnx: missing"),
]


@pytest.mark.parametrize(("corrupt", "message"), [row[1:] for row in CORRUPTIONS], ids=[row[0] for row in CORRUPTIONS])
def test_damaged_bundle_is_refused_with_the_file_and_the_reason(
    copy: Path, corrupt: Callable[[Path], None], message: str
) -> None:
    corrupt(copy)
    with pytest.raises(BundleError, match=message):
        Bundle.load(copy)


def test_absent_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere: expected a bundle"):
        Bundle.load(tmp_path / "nowhere")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('a pickle was executed')",)


def save_with_torch(path: Path) -> None:
    torch.save({"state_dict": Bomb()}, path)


def save_with_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(), protocol=2))


@pytest.mark.parametrize("plant", [save_with_torch, save_with_pickle])
def test_a_pickle_in_a_checkpoint_is_never_executed(bundle: Bundle, tmp_path: Path, plant: Callable[[Path], None]) -> None:
    plant(tmp_path / "bomb.ckpt")
    with pytest.raises(BundleError, match=r"bomb\.ckpt"):
        load_network(tmp_path / "bomb.ckpt", bundle.network)


def test_an_onnx_of_another_shape_is_refused(bundle: Bundle, copy: Path) -> None:
    from model.export import export_onnx  # noqa: PLC0415 -- it imports the exporter

    class Wide(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :12]

    export_onnx(Wide(), copy.parent / "wide.onnx")  # type: ignore[arg-type]
    wide = bundle.save(copy, checkpoint=bundle.checkpoint_path, onnx=copy.parent / "wide.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx: expected images \(28, 28\) to logits \(10,\)"):
        Engine(wide)


def test_both_engines_give_the_same_probabilities(bundle: Bundle, mnist: Any) -> None:
    images, labels = mnist.split("test").arrays()
    onnx, torch_ = (Engine(bundle, name).predict(images) for name in ("onnx", "torch"))
    assert np.abs(onnx - torch_).max() < 1e-5
    assert (onnx.argmax(axis=1) == labels).mean() == bundle.metrics["test_accuracy"]


def test_probabilities_are_a_tempered_softmax() -> None:
    logits = np.array([[0.0, np.log(4.0)], [1000.0, 0.0]], np.float32)
    assert probabilities(logits, 2.0) == pytest.approx(np.array([[1 / 3, 2 / 3], [1, 0]]))

"""What a pod's volume holds while a bundle is brought, and when it cannot be."""

import json
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from model.manifest import Registration
from serving.destination import Destination
from serving.failures import ContentError, DiskError

FILES = {"model.ckpt": b"checkpoint", "model.onnx": b"graph"}
VERSION = Registration(name="digits", version="7")


def manifest(files: dict[str, bytes]) -> bytes:
    return json.dumps({"format_version": 1, "files": {name: sha256(body).hexdigest() for name, body in files.items()}}).encode()


def receive_all(directory: Path, files: dict[str, bytes] = FILES) -> Destination:
    destination = Destination(directory, 1000)
    destination.open()
    for name, body in {"bundle.json": manifest(files), **files}.items():
        assert destination.receive(name, iter([body[:3], body[3:]])) == sha256(body).hexdigest()
    return destination


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_nothing_is_in_its_place_until_everything_is_there(tmp_path: Path) -> None:
    destination = receive_all(tmp_path / "mnt" / "models")
    assert names(tmp_path / "mnt" / "models") == [".incoming"]
    destination.install(VERSION)
    assert names(tmp_path / "mnt" / "models") == ["bundle.json", "model.ckpt", "model.onnx", "registration.json"]
    assert destination.received_bytes == sum(map(len, FILES.values())) + len(manifest(FILES))
    assert Destination(tmp_path / "mnt" / "models", 1000).find(VERSION) == sha256(manifest(FILES)).hexdigest()


def test_the_manifest_goes_first_and_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receive_all(tmp_path).install(VERSION)
    destination = receive_all(tmp_path, {**FILES, "model.onnx": b"another"})
    before, replace = [], Path.replace

    def watch(path: Path, target: Path) -> Path:
        before.append((target.name, (tmp_path / "bundle.json").exists(), (tmp_path / "registration.json").exists()))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watch)
    destination.install(None)
    assert before == [("model.ckpt", False, False), ("model.onnx", False, False), ("bundle.json", False, False)]
    assert names(tmp_path) == ["bundle.json", "model.ckpt", "model.onnx"]


def test_a_retry_begins_the_file_anew(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"much more than the file"
        raise ConnectionResetError

    destination = Destination(tmp_path, 50)
    destination.open()
    for _ in range(10):
        with pytest.raises(ConnectionResetError):
            destination.receive("model.onnx", broken())
    assert destination.receive("model.onnx", iter([b"graph"])) == sha256(b"graph").hexdigest()
    assert (tmp_path / ".incoming" / "model.onnx").read_bytes() == b"graph"
    assert destination.received_bytes == 5


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    receive_all(tmp_path)
    (tmp_path / ".incoming" / "other").write_bytes(b"x")
    receive_all(tmp_path).install(None)
    assert names(tmp_path) == ["bundle.json", "model.ckpt", "model.onnx"]


def test_a_full_device(tmp_path: Path) -> None:
    destination = Destination(tmp_path, 1000)
    destination.open()
    (tmp_path / ".incoming" / "model.onnx").symlink_to("/dev/full")
    with pytest.raises(DiskError, match=rf"^{tmp_path}: cannot be written: No space left on device, \d+ bytes are free$"):
        destination.receive("model.onnx", iter([b"graph"]))


def test_all_files_together_are_limited(tmp_path: Path) -> None:
    destination = Destination(tmp_path, 10)
    destination.open()
    destination.receive("model.ckpt", iter([b"12345"]))
    with pytest.raises(ContentError, match=r"^model\.onnx: expected at most 10 bytes in all files"):
        destination.receive("model.onnx", iter([b"123", b"456"]))
    assert (tmp_path / ".incoming" / "model.onnx").stat().st_size == 3


@pytest.mark.parametrize("other", [Registration(name="letters", version="7"), Registration(name="digits", version="8")])
def test_another_version_is_not_taken_for_it(tmp_path: Path, other: Registration) -> None:
    receive_all(tmp_path).install(VERSION)
    assert Destination(tmp_path, 1000).find(other) is None


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    # Root may write anywhere but here.
    where = Path("/proc/models") if os.geteuid() == 0 else tmp_path / "models"
    tmp_path.chmod(0o500)
    with pytest.raises(DiskError, match=f"^{where}: cannot be written: "):
        Destination(where, 1000).open()
    tmp_path.chmod(0o700)

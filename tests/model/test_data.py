import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn

from model.augmentation import Augmentation
from model.data import Batches, MnistData, Split
from model.errors import ConfigError
from model.idx import DataError, read_idx
from model.mnist import SPLIT_SEED, parts
from tests.processes import ROOT

MNIST = ROOT / "data" / "mnist"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def small_split(size: int = 10) -> Split:
    return Split(images=torch.arange(size * 784.0).view(size, 28, 28), labels=torch.arange(size))


def test_splits_are_50000_5000_5000_and_share_no_image(mnist: MnistData) -> None:
    sizes = {name: len(mnist.split(name)) for name in ("train", "validation", "golden", "test")}
    assert sizes == {"train": 50_000, "validation": 5_000, "golden": 5_000, "test": 10_000}
    # MNIST's training images hold no exact duplicate, so their bytes tell them apart.
    seen = [image.numpy().tobytes() for name in ("train", "validation", "golden") for image in mnist.split(name).images]
    assert len(set(seen)) == 60_000


def test_split_depends_on_the_split_seed_alone(mnist: MnistData) -> None:
    torch.manual_seed(7)
    again = MnistData(str(MNIST))
    assert torch.equal(again.split("golden").images, mnist.split("golden").images)
    other = MnistData(str(MNIST), split_seed=1)
    assert not torch.equal(other.split("golden").labels, mnist.split("golden").labels)


@pytest.mark.parametrize("seed", [SPLIT_SEED, 0, -1, (1 << 40) + 3])
def test_a_split_is_what_pytorch_makes_of_its_seed(seed: int) -> None:
    order = torch.randperm(60_000, generator=torch.Generator().manual_seed(seed))
    assert np.array_equal(np.concatenate(list(parts(seed).values())), order)


def test_what_validates_a_checkpoint_sees_the_validation_images_of_its_run(mnist: MnistData) -> None:
    trained = MnistData(str(MNIST), split_seed=7, augmentation=Augmentation(rotation_degrees=30.0), augment_validation=True)
    data = MnistData(str(MNIST))
    data.setup("validate")
    for fn, source in ((TrainerFn.TESTING, mnist), (TrainerFn.VALIDATING, trained)):
        data.trainer = SimpleNamespace(state=SimpleNamespace(fn=fn))  # type: ignore[assignment] # what is asked of it
        data.load_state_dict(trained.state_dict())
        assert torch.equal(data.split("validation").images, source.split("validation").images)


def test_validation_images_are_distorted_where_that_is_asked_for_and_always_the_same_way(mnist: MnistData) -> None:
    distortion = Augmentation(rotation_degrees=30.0)
    shifted, again = (MnistData(str(MNIST), augmentation=distortion, augment_validation=True) for _ in range(2))
    assert torch.equal(shifted.split("validation").images, again.split("validation").images)
    assert torch.equal(shifted.split("validation").labels, mnist.split("validation").labels)
    assert (shifted.split("validation").images - mnist.split("validation").images).abs().mean() > 0.01
    for name in ("train", "golden", "test"):
        assert torch.equal(shifted.split(name).images, mnist.split(name).images)
    usual = MnistData(str(MNIST), augmentation=distortion)
    assert torch.equal(usual.split("validation").images, mnist.split("validation").images)


def test_images_are_floats_from_0_to_1(mnist: MnistData) -> None:
    images = mnist.split("test").images
    assert images.dtype == torch.float32
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)


def test_digest_names_the_bytes_of_all_files(mnist: MnistData, tmp_path: Path) -> None:
    sums = (MNIST / "SHA256SUMS").read_text()
    (tmp_path / "SHA256SUMS").write_text(sums)
    assert MnistData(str(tmp_path)).digest == mnist.digest
    (tmp_path / "SHA256SUMS").write_text(sums.replace("1a1a05", "1a1a06"))
    assert MnistData(str(tmp_path)).digest != mnist.digest


def corrupt_missing(path: Path) -> None:
    path.unlink()


def corrupt_truncated_gzip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def corrupt_truncated_idx(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))


def corrupt_longer_idx(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"x"))


def corrupt_one_pixel(path: Path) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[1000] ^= 1
    path.write_bytes(gzip.compress(bytes(content)))


def corrupt_magic(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\x00\x00\x0d\x03" + gzip.decompress(path.read_bytes())[4:]))


def corrupt_image_size(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:8] + (14).to_bytes(4, "big") + (56).to_bytes(4, "big") + content[16:]))


def corrupt_header(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:6]))


def corrupt_not_gzip(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


def corrupt_bit_in_gzip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("corrupt", "fault"),
    [
        (corrupt_missing, "missing"),
        (corrupt_truncated_gzip, "truncated"),
        (corrupt_truncated_idx, "truncated, 7,839,916 bytes where its header says 7,840,016"),
        (corrupt_longer_idx, "too long"),
        (corrupt_one_pixel, "altered"),
        (corrupt_magic, "magic number is 0x00000d03"),
        (corrupt_image_size, "images are 14x56, expected 28x28"),
        (corrupt_header, "truncated in its header"),
        (corrupt_not_gzip, "cannot be read"),
        (corrupt_bit_in_gzip, "cannot be read"),
    ],
)
def test_damaged_file_is_named_in_one_line_with_its_fault(tmp_path: Path, corrupt: Callable[[Path], None], fault: str) -> None:
    for file in MNIST.iterdir():
        shutil.copy(file, tmp_path)
    corrupt(tmp_path / TEST_IMAGES)
    with pytest.raises(DataError) as caught:
        MnistData(str(tmp_path)).split("test")
    assert str(tmp_path / TEST_IMAGES) in str(caught.value)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_digests_and_swapped_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="SHA256SUMS: missing"):
        MnistData(str(tmp_path)).split("train")
    for file in MNIST.iterdir():
        shutil.copy(file, tmp_path)
    shutil.copy(tmp_path / TEST_LABELS, tmp_path / TEST_IMAGES)
    with pytest.raises(DataError, match="altered"):
        MnistData(str(tmp_path)).split("test")


def test_plain_idx_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(gzip.decompress((MNIST / TEST_IMAGES).read_bytes()))
    assert np.array_equal(read_idx(path), read_idx(MNIST / TEST_IMAGES))


def test_each_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    batches = Batches(small_split(), batch_size=3, seed=1)
    epochs = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        epochs.append(torch.cat([labels for _, labels in batches]).tolist())
    assert len(batches) == 4
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1] != list(range(10))


def test_images_and_labels_stay_together() -> None:
    for images, labels in Batches(small_split(), batch_size=4, seed=3):
        assert torch.equal(images[:, 0, 0] / 784, labels.float())


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4])
def test_resumed_batches_are_those_that_were_left(stop: int) -> None:
    distortion = Augmentation(rotation_degrees=20, elastic_pixels=1, fade=0.5, noise_deviation=0.3)
    options = {"batch_size": 3, "seed": 5, "augmentation": distortion}
    whole = Batches(small_split(), **options)  # type: ignore[arg-type]
    whole.set_epoch(4)
    expected = list(whole)
    first = Batches(small_split(), **options)  # type: ignore[arg-type]
    first.set_epoch(4)
    for _ in zip(range(stop), first, strict=False):
        pass
    second = Batches(small_split(), batch_size=3, seed=99, augmentation=distortion)
    second.load_state_dict({**first.state_dict(), "position": stop})
    rest = list(second)
    assert len(rest) == len(expected) - stop
    for (images, labels), (expected_images, expected_labels) in zip(rest, expected[stop:], strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)
    second.set_epoch(5)
    assert len(list(second)) == len(expected)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"batch_size": 64}, "data.batch_size: the checkpoint was trained with 128, got 64"),
        ({"split_seed": 7}, "data.split_seed: the checkpoint was trained with 1998, got 7"),
        ({"augmentation": Augmentation(scale=0.1)}, "data.augmentation"),
        ({"augment_validation": True}, "data.augment_validation"),
    ],
)
def test_resume_with_other_data_is_refused(options: dict[str, Any], field: str) -> None:
    state = MnistData(str(MNIST)).state_dict()
    with pytest.raises(ConfigError, match=field):
        MnistData(str(MNIST), **options).load_state_dict(state)


def test_a_last_batch_that_not_every_process_gets_a_share_of_is_refused() -> None:
    with pytest.raises(ConfigError, match="of 1, is too small for 2 devices"):
        Batches(small_split(), batch_size=3, seed=1, world_size=2)
    # Some would have none of any batch, and a loss that is no number.
    with pytest.raises(ConfigError, match="of 2, is too small for 4 devices"):
        Batches(small_split(), batch_size=2, seed=1, world_size=4)


def test_processes_share_a_batch_evenly() -> None:
    split = small_split(11)
    shares = [Batches(split, batch_size=4, seed=1, rank=rank, world_size=2) for rank in range(2)]
    whole = list(Batches(split, batch_size=4, seed=1))
    for (_, first), (_, second), (_, labels) in zip(*shares, whole, strict=True):
        assert len(first) == len(second)
        assert set(first.tolist() + second.tolist()) == set(labels[: len(labels) // 2 * 2].tolist())


def test_evaluation_on_several_processes_drops_nothing() -> None:
    seen = [labels for rank in range(3) for _, labels in Batches(small_split(), batch_size=4, rank=rank, world_size=3)]
    assert sorted(torch.cat(seen).tolist()) == list(range(10))


def test_augmentation_moves_images_but_not_their_batch() -> None:
    images = torch.zeros(8, 28, 28)
    images[:, 10:18, 12:16] = 1.0
    moved = Augmentation(translation_pixels=2, rotation_degrees=10).apply(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert not torch.equal(moved, images)
    assert torch.allclose(moved.sum((1, 2)), images.sum((1, 2)), rtol=0.1)
    assert moved.min() >= 0
    assert moved.max() <= 1.001


def test_augmentation_distorts_by_the_pixels_it_states() -> None:
    ramp = torch.arange(28.0).repeat(500, 28, 1)
    moved = Augmentation(elastic_pixels=1.5, elastic_smoothness_pixels=3).apply(ramp, torch.Generator().manual_seed(0))
    inner = (moved - ramp)[:, 8:20, 8:20]
    assert inner.std() == pytest.approx(1.5, rel=0.1)
    shifted = Augmentation(translation_pixels=2).apply(ramp, torch.Generator().manual_seed(0))
    inner = (shifted - ramp)[:, 8:20, 8:20]
    assert inner.abs().max() == pytest.approx(2, abs=0.05)


def test_augmentation_adds_noise_of_up_to_the_deviation_it_states_and_keeps_pixels_in_range() -> None:
    images = torch.full((2000, 28, 28), 0.5)
    noisy = Augmentation(noise_deviation=0.1).apply(images, torch.Generator().manual_seed(0))
    deviations = (noisy - images).flatten(1).std(dim=1)
    assert deviations.min() < 0.002
    assert 0.095 < deviations.max() < 0.11
    assert deviations.mean() == pytest.approx(0.05, rel=0.05)
    assert torch.all(images == 0.5)
    strong = Augmentation(noise_deviation=1.0).apply(images, torch.Generator().manual_seed(0))
    assert [float(strong.min()), float(strong.max())] == [0, 1]


def test_augmentation_fades_each_image_by_up_to_the_share_it_states() -> None:
    images = torch.rand(2000, 28, 28, generator=torch.Generator().manual_seed(1))
    left = Augmentation(fade=0.6).apply(images, torch.Generator().manual_seed(0)) / images
    shares = left[:, 14, 14]
    assert torch.allclose(left, shares[:, None, None].expand_as(left), atol=1e-5)
    assert 0.4 <= shares.min() < 0.41
    assert 0.99 < shares.max() <= 1
    assert shares.mean() == pytest.approx(0.7, abs=0.01)


def test_noise_and_fading_leave_the_other_draws_as_they_are() -> None:
    images = torch.rand(8, 28, 28, generator=torch.Generator().manual_seed(1))
    still = Augmentation(rotation_degrees=20, elastic_pixels=1).apply(images, torch.Generator().manual_seed(0))
    faint = Augmentation(rotation_degrees=20, elastic_pixels=1, fade=1e-6, noise_deviation=1e-6)
    assert torch.allclose(faint.apply(images, torch.Generator().manual_seed(0)), still, atol=1e-4)
    assert not Augmentation(fade=0.1).is_identity
    assert not Augmentation(noise_deviation=0.1).is_identity
    assert Augmentation().is_identity


@pytest.mark.parametrize("field", ["rotation_degrees", "scale", "elastic_pixels", "fade", "noise_deviation"])
def test_augmentation_out_of_range_names_the_field(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Augmentation(**{field: -1.0})


def test_more_ink_than_there_is_cannot_fade() -> None:
    with pytest.raises(ValueError, match=r"augmentation\.fade: expected at most 1, got 1\.5"):
        Augmentation(fade=1.5)

"""The image stream: folders, damaged files, and determinism for any threads and processes."""

from __future__ import annotations

import itertools
import struct
import warnings
import zlib
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from fastgan.training import image_files
from fastgan.training.crops import cut
from fastgan.training.data import ImageFolder, batches, describe_passed_over, find_images
from fastgan.training.image_files import Reading, decode, read_image


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, size in (("a.jpg", (90, 70)), ("deep/b.PNG", (64, 64)), ("deep/er/c.webp", (40, 120)),
                       ("d.bmp", (33, 50)), ("e.jpeg", (300, 200))):  # fmt: skip
        Image.fromarray(random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def stream(folder, count=4, crop="random", **options):
    dataset = ImageFolder(find_images(folder), (32, 48), crop, seed=5)
    return list(itertools.islice(batches(dataset, count, **options), 6))


def test_finds_images_of_all_kinds_recursively(folder):
    assert [path.name for path in find_images(folder)] == ["a.jpg", "d.bmp", "b.PNG", "c.webp", "e.jpeg"]


def test_what_is_passed_over_is_counted(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("x.HEIC", "y.heic", "z.jxl", "no_ending", ".hidden.png", "._a.jpg"):
        (folder / name).write_bytes(b"")
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "a.jpg").write_bytes((folder / "a.jpg").read_bytes())
    (folder / "linked").symlink_to(elsewhere)
    (folder / "gone.png").symlink_to(elsewhere / "nothing.png")
    (folder / "linked.png").symlink_to(folder / "deep" / "b.PNG")
    passed_over = Counter()
    actual = [path.name for path in find_images(folder, passed_over)]
    assert actual == ["a.jpg", "d.bmp", "b.PNG", "c.webp", "e.jpeg", "linked.png"]
    assert passed_over == {
        ".heic": 2, ".jxl": 1, "without an ending": 1, ".txt": 1, "hidden": 3, "folders that are links": 1,
        "links to nothing and the like": 1,
    }  # fmt: skip
    assert describe_passed_over(passed_over).startswith("3 hidden, 2 .heic, ")
    assert describe_passed_over(passed_over).endswith(", 1 others")
    assert describe_passed_over(Counter()) == ""


def test_a_folder_of_other_files_is_an_error_that_says_so(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds no image \(\.jpg, .*\), but what is passed over: 1 \.heic"):
        find_images(tmp_path)


@pytest.mark.parametrize("crop", ["fit", "random", "slight"])
def test_batches_are_images_in_zero_to_one(folder, crop):
    batch = stream(folder, crop=crop)[0]
    assert batch.shape == (4, 3, 32, 48) and batch.dtype == torch.float32 and batch.is_contiguous()
    assert 0 <= batch.min() < 0.2 and 0.8 < batch.max() <= 1


@pytest.mark.parametrize("crop", ["random", "slight"])
def test_stream_does_not_depend_on_threads_and_can_be_entered_anywhere(folder, crop):
    expected = stream(folder, crop=crop, workers=1)
    for actual, required in zip(stream(folder, crop=crop, workers=4), expected, strict=True):
        assert torch.equal(actual, required)
    assert torch.equal(stream(folder, crop=crop, start_step=4)[0], expected[4])


def test_processes_share_the_batch_of_one(folder):
    joined = stream(folder, count=4)
    halves = [stream(folder, count=2, rank=rank, world_size=2) for rank in (0, 1)]
    for step, full in enumerate(joined):
        assert torch.equal(torch.cat([half[step] for half in halves]), full)


def test_every_image_is_seen_once_per_epoch(folder):
    dataset = ImageFolder(find_images(folder), (8, 8), "fit")
    for epoch in range(3):
        samples = {dataset.sample(5 * epoch + k).tobytes() for k in range(5)}
        assert len(samples) == 5


def test_unreadable_files_are_skipped_counted_and_named_once(folder):
    intact = (folder / "e.jpeg").read_bytes()
    (folder / "e.jpeg").write_bytes(intact[: len(intact) // 2])  # truncated
    (folder / "d.bmp").write_bytes(b"no image at all")
    dataset = ImageFolder(find_images(folder), (16, 16), "fit")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = [dataset.sample(k) for k in range(20)]
    messages = sorted(str(warning.message) for warning in caught)
    assert len(messages) == 2 and messages[0].startswith("skipped unusable image 1: ")
    assert {path.name for path in dataset.unreadable} == {"e.jpeg", "d.bmp"}
    assert all(image.std() > 10 for image in images)  # no black images in place of damaged ones


def test_a_folder_without_a_readable_image_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no image"):
        find_images(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"")
    dataset = ImageFolder(find_images(tmp_path), (8, 8))
    with (
        pytest.warns(UserWarning, match="broken.png"),
        pytest.raises(ValueError, match="1 of 1 images"),
    ):
        dataset.sample(0)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    name = "x.jpg" if mode == "CMYK" else "x.png"
    Image.new("RGB", (20, 20), (200, 100, 50)).convert(mode).save(tmp_path / name)
    assert ImageFolder(find_images(tmp_path), (8, 8)).sample(0).shape == (8, 8, 3)


def test_native_cuts_are_parts_of_the_image_as_it_is(folder):
    dataset = ImageFolder([folder / "a.jpg"], (16, 24), "native", seed=1)
    intact = np.array(Image.open(folder / "a.jpg").convert("RGB"))
    windows = np.lib.stride_tricks.sliding_window_view(intact, (16, 24, 3)).reshape(-1, 16, 24, 3)
    for k in range(3):
        part = dataset.sample(k)
        assert any((windows == view).all((1, 2, 3)).any() for view in (part, part[:, ::-1]))


def place_of(cut):
    """(left, top, right, bottom) of a cut from :func:`coordinates`, and whether it is mirrored."""
    edges = []
    for first, last in ((cut[:, 0, 0], cut[:, -1, 0]), (cut[0, :, 1], cut[-1, :, 1])):
        first, last = first.mean() / 255, last.mean() / 255
        half = (last - first) / (2 * (len(cut) - 1))  # these are the centres of the outermost pixels
        edges.append((first - half, last + half))
    (left, right), (top, bottom) = edges
    return min(left, right), top, max(left, right), bottom, left > right


def coordinates(path, width, height):
    """An image whose red is 0 at its left and 255 at its right, and whose green is so from top to bottom."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    pixels = np.stack([x, y, 0 * x], axis=2) * 255
    Image.fromarray(pixels.round().astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize("crop", ["random", "slight"])
@pytest.mark.parametrize("width, height", [(220, 300), (300, 55), (112, 112)])
def test_images_smaller_than_the_size_are_enlarged(crop, width, height):
    image, random = Image.new("RGB", (width, height), (9, 99, 199)), np.random.default_rng(0)
    for _ in range(20):
        part = np.array(cut(image, (400, 400), crop, random))
        assert part.shape == (400, 400, 3) and (part == (9, 99, 199)).all()
    with pytest.raises(ValueError, match="crop must be one of fit, random, slight, native, got 'middle'"):
        cut(image, (400, 400), "middle", random)


def test_half_of_the_slight_cuts_are_the_whole_image_and_the_others_most_of_it(tmp_path):
    dataset = ImageFolder([coordinates(tmp_path / "x.png", 200, 200)], (64, 64), "slight", seed=1)
    uncropped, mirrored, areas, ratios, lefts = 0, 0, [], [], []
    for k in range(600):
        left, top, right, bottom, is_mirrored = place_of(dataset.sample(k))
        mirrored += is_mirrored
        assert min(left, top) > -0.02 and max(right, bottom) < 1.02
        if max(left, top) < 0.003 and min(right, bottom) > 0.997:
            uncropped += 1
        else:
            areas.append((right - left) * (bottom - top))
            ratios.append((right - left) / (bottom - top))
            lefts.append(left)
    assert 260 < uncropped < 340 and 260 < mirrored < 340
    assert 0.79 < min(areas) < 0.82 and 0.95 < max(areas) < 1.01
    assert 0.89 < min(ratios) < 0.93 and 1.07 < max(ratios) < 1.11
    assert np.mean(areas) == pytest.approx(0.88, abs=0.01), "uniform, but parts that do not fit are redrawn"
    assert min(lefts) < 0.01 and max(lefts) > 0.1


@pytest.mark.parametrize("width, height, part", [(300, 100, (1.1 / 3, 1)), (100, 300, (1, 1 / 2.7))])
def test_slight_cuts_of_long_images_are_whole_and_squeezed_or_their_centre(tmp_path, width, height, part):
    dataset = ImageFolder([coordinates(tmp_path / "x.png", width, height)], (64, 64), "slight")
    actual = [place_of(dataset.sample(k))[:4] for k in range(40)]
    wide, high = part
    centre = ((1 - wide) / 2, (1 - high) / 2, (1 + wide) / 2, (1 + high) / 2)
    kinds = [[np.allclose(one, box, atol=0.015) for box in ((0, 0, 1, 1), centre)] for one in actual]
    assert all(full != cut for full, cut in kinds)
    assert 10 < sum(full for full, _ in kinds) < 30


def test_images_smaller_than_a_native_cut_are_named(folder):
    dataset = ImageFolder(find_images(folder), (60, 60), "native")
    with pytest.warns(UserWarning, match="is smaller than the crop, 60x60") as caught:
        assert {dataset.sample_and_file(k)[1].name for k in range(10)} == {"a.jpg", "b.PNG", "e.jpeg"}
    assert sum("its size, 50x33, is smaller" in str(warning.message) for warning in caught) == 1
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="3 of 5 images .* smaller than the crop"):
        ImageFolder(find_images(folder), (500, 60), "native").sample(0)


def test_batches_of_several_parts(folder):
    class Labelled:
        def sample(self, k):
            return np.full((4, 5, 3), k, np.uint8), np.int64(k), np.full(2, k / 2, np.float32)

    images, labels, vectors = next(batches(Labelled(), 3, start_step=2))
    assert labels.tolist() == [6, 7, 8] and labels.dtype == torch.int64
    assert vectors.tolist() == [[3.0, 3.0], [3.5, 3.5], [4.0, 4.0]]
    assert images.shape == (3, 3, 4, 5) and torch.equal(images[:, 0, 0, 0], labels / 255)


def bomb(path, width=13000, height=13000):
    """A file of a few KB whose header claims this size: Pillow would decode it to 512 MB."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((width + 1) * 8))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.fixture
def undecoded(monkeypatch):
    """Makes decoding of more than a million pixels fail the test."""
    load = ImageFile.ImageFile.load

    def checked(self):
        assert self.width * self.height < 10**6, "it was decoded"
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", checked)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10000, 13000, 100_000])
def test_images_of_too_many_pixels_are_skipped_and_counted_before_they_are_decoded(folder, undecoded, side):
    bomb(folder / "bomb.png", side, side)
    dataset = ImageFolder(find_images(folder), (8, 8))
    with pytest.warns(UserWarning, match="skipped unusable image 1: .*bomb.png .*--max_pixels 89478485"):
        files = {dataset.sample_and_file(k)[1].name for k in range(12)}
    assert len(files) == 5 and "bomb.png" not in files
    with pytest.raises(ValueError, match="more .*than --max_pixels 89478485 allows"):
        read_image(folder / "bomb.png")


def test_the_limit_of_pixels_is_an_option(folder, monkeypatch):
    assert read_image(folder / "a.jpg", Reading(90 * 70)).size == (90, 70)
    with pytest.raises(ValueError, match="it has 90x70 pixels, more than --max_pixels 6299 allows"):
        read_image(folder / "a.jpg", Reading(90 * 70 - 1))
    dataset = ImageFolder(find_images(folder), (8, 8), reading=Reading(64 * 64, max_unusable=1))
    with pytest.warns(UserWarning, match="--max_pixels 4096 allows"):
        assert {dataset.sample_and_file(k)[1].name for k in range(10)} == {"b.PNG", "d.bmp"}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: None)
    monkeypatch.setattr(image_files, "upright", lambda image: image)
    bomb(folder / "large.png", 20000, 10000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(folder / "large.png", 200_000_000)
    assert Image.MAX_IMAGE_PIXELS == 200_000_000

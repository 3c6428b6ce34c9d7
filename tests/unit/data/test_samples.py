from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgebm.data.samples import Samples, open_samples
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

IMAGE = [TensorSpec("image", "float32", (1, 3, 4, 5))]
TEXT = [
    TensorSpec("ids", "int64", ("batch", "seq")),
    TensorSpec("mask", "int64", ("batch", "seq")),
]


def images(count: int = 7) -> NDArray[Any]:
    return np.arange(count * 60, dtype=np.float32).reshape(count, 3, 4, 5)


def stacked(samples: Samples, name: str = "image") -> NDArray[Any]:
    return np.concatenate([feeds[name] for feeds in samples.feeds()])


def saved(path: Path, *, packed: bool = False, **arrays: NDArray[Any]) -> Path:
    (np.savez_compressed if packed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_npz_gives_every_sample_in_the_place_of_the_batch(tmp_path: Path, packed: bool) -> None:
    path = saved(tmp_path / "s.npz", packed=packed, image=images(), labels=np.arange(7))
    samples = open_samples(path, IMAGE)
    assert len(samples) == 7
    assert [feeds["image"].shape for feeds in samples.feeds()] == [(1, 3, 4, 5)] * 7
    np.testing.assert_array_equal(stacked(samples), images())
    np.testing.assert_array_equal(stacked(samples), images(), "readable twice")
    np.testing.assert_array_equal(samples.labels, np.arange(7))
    np.testing.assert_array_equal(next(iter(samples.feeds(5, 6)))["image"], images()[5:6])


@pytest.mark.parametrize("packed", [False, True])
def test_npz_is_read_in_blocks(tmp_path: Path, packed: bool) -> None:
    import tracemalloc

    rows = np.zeros((2000, 3, 32, 32), np.float32)
    path = saved(tmp_path / "s.npz", packed=packed, x=rows)
    samples = open_samples(path, [TensorSpec("x", "float32", (1, 3, 32, 32))])
    tracemalloc.start()
    for _ in samples.feeds():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rows.nbytes / 5


def test_member_with_its_own_extra_field_is_found(tmp_path: Path) -> None:
    # The local header of a zip member may be longer than the central directory says.
    np.save(tmp_path / "image.npy", images())
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        info = zipfile.ZipInfo("image.npy")
        info.extra = b"\x99\x99\x04\x00abcd"
        archive.writestr(info, (tmp_path / "image.npy").read_bytes())
    np.testing.assert_array_equal(stacked(open_samples(tmp_path / "s.npz", IMAGE)), images())


def test_fortran_order_and_big_endian_values_are_right(tmp_path: Path) -> None:
    path = saved(tmp_path / "f.npz", image=np.asfortranarray(images()))
    np.testing.assert_array_equal(stacked(open_samples(path, IMAGE)), images())
    path = saved(tmp_path / "b.npz", image=images().astype(">f4"))
    sample = next(open_samples(path, IMAGE).feeds())["image"]
    assert sample.dtype == np.dtype("float32")
    np.testing.assert_array_equal(sample, images()[:1])


def test_one_array_of_any_name_for_a_model_with_one_input(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        stacked(open_samples(saved(tmp_path / "s.npz", arr_0=images()), IMAGE)), images()
    )
    np.save(tmp_path / "s.npy", images())
    np.testing.assert_array_equal(stacked(open_samples(tmp_path / "s.npy", IMAGE)), images())


def test_an_array_of_one_rank_more_holds_samples_whole() -> None:
    spec = [TensorSpec("x", "float32", (8, 4))]
    samples = open_samples({"x": np.ones((3, 8, 4), np.float32)}, spec)
    assert [feeds["x"].shape for feeds in samples.feeds()] == [(8, 4)] * 3
    samples = open_samples({"image": images()[:, None]}, IMAGE)
    assert [feeds["image"].shape for feeds in samples.feeds()] == [(1, 3, 4, 5)] * 7
    scalar = open_samples({"t": np.arange(3.0)}, [TensorSpec("t", "float64", ())])
    assert [feeds["t"].shape for feeds in scalar.feeds()] == [()] * 3


def test_folder_of_arrays_takes_single_samples_and_batches(tmp_path: Path) -> None:
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", images()[index])
    np.save(tmp_path / "3.npy", images()[3:])
    np.testing.assert_array_equal(stacked(open_samples(tmp_path, IMAGE)), images())
    assert len(open_samples(tmp_path, IMAGE, limit=2)) == 2
    assert len(open_samples(tmp_path, IMAGE, limit=5)) == 5


def test_folder_of_npz_samples_with_labels(tmp_path: Path) -> None:
    for index in range(3):
        saved(tmp_path / f"{index}.npz", image=images()[index], labels=np.array([index]))
    samples = open_samples(tmp_path, IMAGE)
    np.testing.assert_array_equal(stacked(samples), images(3))
    np.testing.assert_array_equal(samples.labels, [0, 1, 2])


class Tensor:
    """Looks like a tensor of a training framework."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> NDArray[Any]:
        return self._array


def loader() -> Iterator[Any]:
    for start in range(0, 7, 3):
        yield [
            Tensor(images()[start : start + 3]),
            Tensor(np.arange(start, min(start + 3, 7))),
        ]


@pytest.mark.parametrize(
    "source",
    [
        images(),
        Tensor(images()),
        {"image": images()},
        (images(), np.arange(7)),
        ({"image": images()}, np.arange(7)),
        list(images()),
        [{"image": image} for image in images()],
        [(image, label) for label, image in enumerate(images())],
        [(image[None], np.array([label])) for label, image in enumerate(images())],
        (image for image in images()),
        ({"image": image, "labels": label} for label, image in enumerate(images())),
        loader(),
    ],
)
def test_live_sources_are_all_read_alike(source: Any) -> None:
    with open_samples(source, IMAGE) as samples:
        np.testing.assert_array_equal(stacked(samples), images())
        np.testing.assert_array_equal(stacked(samples), images())
        if samples.labels is not None:
            np.testing.assert_array_equal(samples.labels, np.arange(7))


def test_a_real_data_loader() -> None:
    data = pytest.importorskip("torch.utils.data")
    torch = pytest.importorskip("torch")
    pairs = data.TensorDataset(torch.from_numpy(images()), torch.arange(7))
    samples = open_samples(data.DataLoader(pairs, batch_size=2), IMAGE)
    np.testing.assert_array_equal(stacked(samples), images())
    np.testing.assert_array_equal(samples.labels, np.arange(7))


def test_two_inputs_by_order_and_by_name_with_free_lengths() -> None:
    rows = [np.arange(n, dtype=np.int64) for n in (3, 5, 2)]
    by_order = open_samples([(row, np.ones_like(row)) for row in rows], TEXT)
    by_name = open_samples(({"ids": row, "mask": np.ones_like(row)} for row in rows), TEXT)
    for samples in (by_order, by_name):
        got = list(samples.feeds())
        assert [feeds["ids"].shape for feeds in got] == [(1, 3), (1, 5), (1, 2)]
        np.testing.assert_array_equal(got[1]["ids"][0], rows[1])
    assert by_order.digest() == by_name.digest()
    assert by_name.scan().shapes["ids"] == {(1, 3), (1, 5), (1, 2)}


def test_named_function_of_a_file(tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(
        "import numpy as np\n"
        "def samples():\n"
        "    for k in range(4):\n"
        "        yield np.full((3, 4, 5), k, np.float32), k\n"
        "def broken():\n"
        "    yield np.zeros((3, 4, 5), np.float32)\n"
        "    raise KeyError('gone')\n"
    )
    samples = open_samples(f"{code}:samples", IMAGE)
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="KeyError: 'gone'"):
        open_samples(f"{code}:broken", IMAGE)
    with pytest.raises(DataError) as caught:
        open_samples(f"{code}:sample", IMAGE)
    assert "samples" in caught.value.hint


def test_endless_generator_stops_at_the_limit() -> None:
    def forever() -> Iterator[NDArray[Any]]:
        while True:
            yield images(1)

    assert len(open_samples(forever(), IMAGE, limit=5)) == 5


def test_split_holds_out_the_end_and_subset_spreads_evenly() -> None:
    rows = np.arange(100, dtype=np.float32)[:, None]
    samples = open_samples(
        rows,
        [TensorSpec("x", "float32", (1, 1))],
        labels=np.arange(100.0),
    )
    calibration, evaluation = samples.split()
    assert stacked(calibration, "x").ravel().tolist() == list(range(80))
    assert evaluation.labels is not None
    assert evaluation.labels.tolist() == list(range(80, 100))
    some = stacked(calibration.subset(8), "x").ravel()
    assert (some // 10).astype(int).tolist() == list(range(8))
    assert some.tolist() == stacked(calibration.subset(8), "x").ravel().tolist()
    assert some.tolist() != stacked(calibration.subset(8, seed=1), "x").ravel().tolist()
    assert calibration.subset(80) is calibration
    for size in (1, 50, 63, 79):
        drawn = stacked(calibration.subset(size), "x").ravel()
        assert (np.diff(drawn) > 0).all(), "no sample twice"
        assert len(drawn) == size


def test_a_set_sorted_by_class_is_warned_about() -> None:
    rows = np.zeros((100, 1), np.float32)
    spec = [TensorSpec("x", "float32", (1, 1))]
    sorted_by_class = open_samples(rows, spec, labels=np.arange(100) // 10)
    assert "shuffle" in sorted_by_class.split()[1].warnings[0]
    assert not open_samples(rows, spec, labels=np.arange(100) % 10).split()[1].warnings


def test_one_sample_calibrates_and_evaluates_with_a_warning() -> None:
    calibration, evaluation = open_samples(images(1), IMAGE).split()
    assert len(calibration) == len(evaluation) == 1
    assert "one sample" in calibration.warnings[-1]


def test_digest_is_of_the_content(tmp_path: Path) -> None:
    labels = np.arange(7)
    file = open_samples(
        saved(tmp_path / "s.npz", packed=True, image=images(), labels=labels), IMAGE
    )
    live = open_samples(images(), IMAGE, labels=labels)
    assert file.digest() == live.digest()
    changed = images()
    changed[6, 2, 3, 4] += 1
    others = [
        open_samples(images(), IMAGE),
        open_samples(changed, IMAGE, labels=labels),
        open_samples(images(), IMAGE, labels=labels[::-1]),
        live.subset(6),
    ]
    assert len({live.digest(), *(other.digest() for other in others)}) == 5


def test_scan_gives_ranges_and_counts_different_samples() -> None:
    samples = open_samples(images(), IMAGE)
    assert samples.scan().ranges == {"image": (0.0, 419.0)}
    same = open_samples(np.ones((4, 3, 4, 5), np.float32), IMAGE)
    assert same.scan().distinct == 1
    twice = open_samples(np.concatenate([images(), images()[2:4]]), IMAGE, labels=np.arange(9))
    assert twice.scan().distinct == 7
    hashes = twice.scan().samples
    assert hashes.nbytes == 8 * 9
    assert hashes[7:].tolist() == hashes[2:4].tolist(), "labels have no part in it"
    assert hashes[:7].tolist() == samples.scan().samples.tolist()


def test_spooled_samples_end_with_close() -> None:
    samples = open_samples((image for image in images()), IMAGE)
    part = samples.subset(3)
    samples.close()
    with pytest.raises(DataError, match="closed"):
        next(part.feeds())


def test_float64_is_rounded_with_a_warning_and_integers_must_fit() -> None:
    samples = open_samples(images().astype(np.float64), IMAGE)
    assert next(samples.feeds())["image"].dtype == np.float32
    assert "rounded" in samples.warnings[0]
    ids = [TensorSpec("ids", "int32", ("batch", "seq"))]
    fits = open_samples(np.ones((2, 3), np.int64), ids)
    assert next(fits.feeds())["ids"].dtype == np.int32
    assert not fits.warnings
    large = open_samples(np.array([[1, 2], [3, 1 << 40]]), ids)
    with pytest.raises(DataError, match=f"sample 1: .*cannot hold {1 << 40}"):
        list(large.feeds())

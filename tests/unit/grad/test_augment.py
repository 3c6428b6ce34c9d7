from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.errors import UsageError  # noqa: E402
from edgebm.grad.augment import changed, check, draw, mixed  # noqa: E402

ALL = ("flip", "shift", "cutout", "mixup", "noise", "gain", "time_shift")
IMAGES = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def drawn(*ways, count: int = 16, seed: int = 0):
    return draw(ways, count, torch.Generator().manual_seed(seed))


def test_equal_chance_gives_equal_samples_however_they_are_split() -> None:
    chance = drawn(*ALL)
    whole = changed({"x": IMAGES}, {"x": 0}, chance)["x"]
    part = torch.tensor([9, 2, 5])
    some = changed({"x": IMAGES[part]}, {"x": 0}, {k: v[part] for k, v in chance.items()})["x"]
    assert torch.equal(some, whole[part])
    assert not torch.equal(whole, IMAGES)


def test_flipped_images_are_mirrored() -> None:
    found = changed({"x": IMAGES}, {}, drawn("flip"))["x"]
    flipped = [bool(torch.equal(a, b.flip(-1))) for a, b in zip(found, IMAGES, strict=True)]
    same = [bool(torch.equal(a, b)) for a, b in zip(found, IMAGES, strict=True)]
    assert [a != b for a, b in zip(flipped, same, strict=True)] == [True] * 16
    assert 2 < sum(flipped) < 14


def test_shifted_images_keep_their_middle() -> None:
    ramp = torch.arange(16.0).expand(16, 1, 16, 16)
    found = changed({"x": ramp}, {}, drawn("shift"))["x"]
    by = (found[:, 0, 8, 8] - 8).long()
    assert int(by.min()) == -2
    assert int(by.max()) == 2
    for image, shift in zip(found, by.tolist(), strict=True):
        row = [abs(i + shift) if i + shift < 16 else 30 - i - shift for i in range(16)]
        assert image[0, 3].tolist() == row


def test_channels_may_be_last() -> None:
    last = IMAGES.permute(0, 2, 3, 1)
    for way in ("flip", "shift", "cutout"):
        one = changed({"x": IMAGES}, {}, drawn(way))["x"]
        other = changed({"x": last}, {}, drawn(way))["x"]
        assert torch.allclose(other.permute(0, 3, 1, 2), one, atol=1e-6), way


def test_a_square_is_cut_out() -> None:
    found = changed({"x": IMAGES}, {}, drawn("cutout"))["x"]
    assert [int((a != b).any(0).sum()) for a, b in zip(found, IMAGES, strict=True)] == [16] * 16


def test_noise_is_small_and_of_the_sample() -> None:
    found = changed({"x": 100 * IMAGES}, {}, drawn("noise"))["x"]
    error = (found - 100 * IMAGES).flatten(1).std(1) / (100 * IMAGES).flatten(1).std(1)
    assert 0 < float(error.max()) < 0.11


def test_signals_move_in_time() -> None:
    sound = torch.arange(1.0, 41.0).expand(16, 1, 40)
    found = changed({"x": sound}, {}, drawn("time_shift"))["x"]
    by = (found[:, 0, 20] - 21).long()
    assert int(by.min()) == -4
    assert int(by.max()) == 4
    for row, shift in zip(found[:, 0], by.tolist(), strict=True):
        want = [float(i + 1 + shift) if 0 <= i + shift < 40 else 0.0 for i in range(40)]
        assert row.tolist() == want
    louder = changed({"x": sound}, {}, drawn("gain"))["x"] / sound
    assert torch.allclose(louder, louder[:, :, :1])
    assert 0.5 <= float(louder.min()) < 0.7
    assert 1.5 < float(louder.max()) <= 2


def test_samples_along_another_axis() -> None:
    sound = torch.rand(40, 16, 2, generator=torch.Generator().manual_seed(1))
    one = changed({"x": sound}, {"x": 1}, drawn("time_shift"))["x"]
    other = changed({"x": sound.movedim(1, 0)}, {"x": 0}, drawn("time_shift"))["x"]
    assert torch.equal(one.movedim(1, 0), other)


def test_mixtures() -> None:
    share = torch.tensor([[0.25, 0, 0], [1.0, 0, 0]])
    x, other = torch.ones(3, 2), torch.zeros(3, 2)
    assert mixed(x, other, share, 1).tolist() == [[0.25, 1.0]] * 3


def test_whole_numbers_stay() -> None:
    ids = torch.arange(6).reshape(2, 3)
    assert changed({"ids": ids}, {}, drawn("noise", "gain", count=2))["ids"] is ids


def test_every_way_without_an_input_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        check(
            ("flip", "noise", "mixup"), {"ids": torch.zeros(2, 3).long()}, labels=False, alike=True
        )
    for fault in ("flip: no input is images", "noise: no input is floats", "mixup: no input is"):
        assert fault in str(caught.value)
    images = {"x": IMAGES}
    check(("flip", "shift", "mixup"), images, labels=False, alike=True)
    with pytest.raises(UsageError, match="mixture has no label"):
        check(("mixup",), images, labels=True, alike=True)
    with pytest.raises(UsageError, match="different shapes"):
        check(("mixup",), images, labels=False, alike=False)
    with pytest.raises(UsageError, match="gain: no input is a signal"):
        check(("gain",), images, labels=False, alike=True)

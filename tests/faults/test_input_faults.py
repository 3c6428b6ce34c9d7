"""Wrong calls: every runtime gives the same verdict, in the same words, and survives."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_bundles import DATA, INSTALLED, at, with_manifest

import edgebm
from edgebm.errors import (
    Closed,
    DeadlineExceeded,
    EdgebmError,
    ForkedUse,
    InputDType,
    InputNonFinite,
    InputPort,
    InputRange,
    InputShape,
    InputType,
    UsageError,
)
from edgebm.runtime.session import Session


@pytest.fixture(scope="module")
def images() -> Iterator[list[Session]]:
    yield from opened("image")


@pytest.fixture(scope="module")
def tokens() -> Iterator[list[Session]]:
    yield from opened("tokens")


@pytest.fixture(scope="module")
def echoes() -> Iterator[list[Session]]:
    yield from opened("echo")


def opened(name: str) -> Iterator[list[Session]]:
    sessions = [edgebm.load(DATA / f"{name}.edgebm", target=runtime) for runtime in INSTALLED]
    yield sessions
    for session in sessions:
        session.close()


def refused(sessions: Sequence[Session], kind: type[EdgebmError], *args: Any, **named: Any) -> str:
    """The one text with which every session refuses the call."""
    texts = set()
    for session in sessions:
        with pytest.raises(kind) as caught:
            session.run(*args, **named)
        assert type(caught.value) is kind
        texts.add(f"{caught.value} | {caught.value.hint}")
    assert len(texts) == 1
    return texts.pop()


IMAGE = np.random.default_rng(5).normal(size=(1, 3, 4, 5)).astype(np.float32)


@pytest.mark.row(31)
@pytest.mark.parametrize("dtype", ["f8", "f2", "u1", "i8", "?", "c8", "O", "U3", "M8[s]"])
def test_another_dtype(images: list[Session], dtype: str) -> None:
    wrong = np.zeros((1, 3, 4, 5), dtype)
    assert "expected float32" in refused(images, InputDType, wrong)


@pytest.mark.row(32)
def test_the_other_byte_order(images: list[Session]) -> None:
    text = refused(images, InputDType, IMAGE.astype(">f4"))
    assert "'image' has dtype >f4, expected float32 | the bytes are in the other order" in text


@pytest.mark.row(33)
@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((1, 4, 5, 3), "NCHW is expected: x.transpose(0, 3, 1, 2) fits"),
        ((3, 4, 5), "the batch axis is missing: x[None] fits"),
        ((0, 3, 4, 5), "an empty array has no answer"),
        ((2, 3, 4, 5), "one sample at a time: x[i : i + 1] for each i"),
        ((1, 3, 4, 6), ""),
        ((2, 3, 4, 6), ""),
        ((1, 1, 3, 4, 5), ""),
        ((4, 5), ""),
        ((), ""),
    ],
)
def test_another_shape(images: list[Session], shape: tuple[int, ...], hint: str) -> None:
    text = refused(images, InputShape, np.zeros(shape, np.float32))
    assert text == f"input 'image' has shape {list(shape)}, expected [1, 3, 4, 5] | {hint}"


@pytest.mark.row(34)
def test_arrays_of_any_strides_are_taken(images: list[Session]) -> None:
    raw = np.zeros(IMAGE.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(IMAGE.shape)
    unaligned[...] = IMAGE
    read_only = IMAGE.copy()
    read_only.flags.writeable = False
    wide = np.zeros((1, 3, 4, 10), np.float32)
    wide[..., ::2] = IMAGE
    for session in images:
        expected = session.run(IMAGE)["scores"]
        for same in (
            unaligned,
            read_only,
            wide[..., ::2],
            np.asfortranarray(IMAGE),
            np.ascontiguousarray(IMAGE[..., ::-1])[..., ::-1],
            np.broadcast_to(IMAGE, IMAGE.shape),
            IMAGE.view(np.memmap),
        ):
            np.testing.assert_array_equal(session.run(same)["scores"], expected)


@pytest.mark.row(35)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite(images: list[Session], bad: float) -> None:
    wrong = IMAGE.copy()
    wrong[0, 1, 2, 3] = wrong[0, 2, 0, 0] = bad
    text = refused(images, InputNonFinite, wrong)
    assert "'image' has 2 of 60 values that are NaN or infinite, the first at [0, 1, 2, 3]" in text
    assert "60 of 60" in refused(images, InputNonFinite, np.full_like(IMAGE, bad))


@pytest.mark.row(35, 36)
@pytest.mark.parametrize(
    ("bad", "kind"), [(np.nan, "nonfinite"), (np.inf, "nonfinite"), (255.0, "envelope")]
)
def test_an_odd_value_is_marked_or_let_through_where_that_is_asked_for(
    tmp_path: Path, bad: float, kind: str
) -> None:
    path = tmp_path / "b.edgebm"
    path.write_bytes(with_manifest(at("ranges", value={"image": [-4.0, 4.0]})))
    odd = IMAGE.copy()
    odd[0, 1, 2, 3] = bad
    told = set()
    for runtime in INSTALLED:
        with edgebm.load(path, target=runtime, nonfinite="mark") as session:
            assert session.run(IMAGE).doubts == ()
            told.add(session.run(odd).doubts)
        with edgebm.load(path, target=runtime, nonfinite="allow", envelope="allow") as session:
            assert session.run(odd).doubts == ()
        with (
            edgebm.load(path, target=runtime, envelope="error") as session,
            pytest.raises(InputNonFinite if kind == "nonfinite" else InputRange),
        ):
            session.run(odd)
    assert len(told) == 1
    assert [doubt.kind for doubt in told.pop()] == [kind]


def test_huge_finite_values_are_no_fault(images: list[Session]) -> None:
    for session in images:
        huge = np.zeros_like(IMAGE)
        huge[0, 0, 0, 0] = 3e38
        assert session.run(huge)["scores"].shape == (1, 2)


@pytest.mark.row(38)
@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        (
            {"imgae": IMAGE},
            "missing inputs ['image']; unknown inputs ['imgae'] | 'imgae' may mean",
        ),
        ({}, "missing inputs ['image']"),
        ({"image": IMAGE, "extra": IMAGE}, "unknown inputs ['extra']"),
        ({0: IMAGE}, "missing inputs ['image']; unknown inputs [0]"),
    ],
)
def test_another_name(images: list[Session], feeds: dict[Any, Any], words: str) -> None:
    assert words in refused(images, InputPort, feeds)


@pytest.mark.row(38)
def test_names_given_twice_or_not_at_all(images: list[Session], tokens: list[Session]) -> None:
    assert "both" in refused(images, InputPort, IMAGE, image=IMAGE)
    assert "both" in refused(images, InputPort, {"image": IMAGE}, image=IMAGE)
    assert "missing" in refused(images, InputPort)
    assert "2 inputs, ndarray was given" in refused(tokens, InputPort, np.zeros((1, 4), np.int64))


@pytest.mark.row(39)
@pytest.mark.parametrize(
    "value", [None, [1.0], "image", 3.0, np.float32(1), object(), memoryview(b"1"), b"1"]
)
def test_no_array(images: list[Session], value: Any) -> None:
    assert "a numpy array is expected" in refused(images, InputType, {"image": value})
    assert "a numpy array is expected" in refused(images, InputType, value)


@pytest.mark.row(39)
def test_a_masked_array_hides_values(images: list[Session]) -> None:
    masked = np.ma.masked_less(IMAGE, 0)
    assert "masked array" in refused(images, InputType, masked)


@pytest.mark.row(39)
def test_tensors_of_the_cpu_are_taken_as_they_are(images: list[Session]) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(IMAGE.copy())
    for session in images:
        expected = session.run(IMAGE)["scores"]
        for given in (tensor, tensor.contiguous(memory_format=torch.channels_last)):
            np.testing.assert_array_equal(session.run(given)["scores"], expected)
            np.testing.assert_array_equal(session.run(image=given)["scores"], expected)
    assert "dtype float64" in refused(images, InputDType, tensor.double())
    assert "has shape [1, 3, 4]" in refused(images, InputShape, tensor[..., 0])
    learned = tensor.clone().requires_grad_()
    assert "detach().cpu().numpy()" in refused(images, InputType, learned)
    assert "gives no memory of the CPU" in refused(images, InputType, tensor.to("meta"))


@pytest.mark.row(43)
def test_sizes_outside_the_range_of_a_free_axis(tokens: list[Session]) -> None:
    for n, t in ((0, 4), (1, 0), (5, 4), (1, 9), (1, 100_000)):
        wrong = np.zeros((n, t), np.int64)
        text = refused(tokens, InputShape, ids=wrong, mask=wrong)
        assert "(n from 1 to 4, t from 1 to 8)" in text


@pytest.mark.row(33)
def test_axes_of_one_name_must_agree(tokens: list[Session]) -> None:
    ids, mask = np.zeros((1, 4), np.int64), np.zeros((1, 5), np.int64)
    assert "t is 5 here and 4 in 'ids'" in refused(tokens, InputShape, ids=ids, mask=mask)


@pytest.mark.row(42)
@pytest.mark.parametrize("bad", [-1, 12, np.iinfo(np.int64).min, np.iinfo(np.int64).max])
def test_an_index_outside_its_table(tokens: list[Session], bad: int) -> None:
    ids = np.zeros((2, 3), np.int64)
    mask = np.full((2, 3), 99)
    ids[1, 2] = bad
    text = refused(tokens, InputRange, ids=ids, mask=mask)
    assert f"'ids' has 1 of 6 indices outside 0..11, the first is {bad} at [1, 2]" in text


def test_all_faults_of_a_call_come_at_once(tokens: list[Session]) -> None:
    for session in tokens:
        with pytest.raises(InputDType, match=r"'ids' has dtype.*'mask' is list") as caught:
            session.run(ids=np.zeros((1, 4), np.float32), mask=[1])
        codes = [fault["code"] for fault in caught.value.details["faults"]]
        assert codes == ["input_dtype", "input_type"]


@pytest.mark.row(41)
def test_outputs_belong_to_the_caller(images: list[Session], tokens: list[Session]) -> None:
    for session in images:
        first = session.run(IMAGE)["scores"]
        kept = first.copy()
        session.run(-IMAGE)
        np.testing.assert_array_equal(first, kept)
        first[:] = 7
        np.testing.assert_array_equal(session.run(IMAGE)["scores"], kept)
    ids = np.arange(4)[None]
    for session in tokens:
        first = session.run(ids=ids, mask=np.ones_like(ids))["used"]
        session.run(ids=ids, mask=np.zeros_like(ids))
        assert first.shape == (2, 4)


@pytest.mark.row(40)
def test_inputs_are_not_kept(images: list[Session]) -> None:
    for session in images:
        x = IMAGE.copy()
        expected = session.run(x)["scores"]
        x[:] = 0
        np.testing.assert_array_equal(session.run(IMAGE)["scores"], expected)


@pytest.mark.row(41)
def test_the_callers_own_buffers(images: list[Session]) -> None:
    for session in images:
        buffer = np.empty((1, 2), np.float32)
        out = session.run(IMAGE, out={"scores": buffer})
        assert out["scores"] is buffer
        np.testing.assert_array_equal(buffer, session.run(IMAGE)["scores"])
    read_only = np.empty((1, 2), np.float32)
    read_only.flags.writeable = False
    assert "out['scores']" in refused(
        images, InputShape, IMAGE, out={"scores": np.empty((2, 1), np.float32)}
    )
    refused(images, InputDType, IMAGE, out={"scores": np.empty((1, 2))})
    refused(images, InputPort, IMAGE, out={"score": np.empty((1, 2), np.float32)})
    refused(images, InputType, IMAGE, out={"scores": read_only})
    refused(images, InputType, IMAGE, out=[np.empty((1, 2), np.float32)])


def test_deadlines(images: list[Session]) -> None:
    for session in images:
        assert session.run(IMAGE, deadline_ms=60_000)["scores"].shape == (1, 2)
        with pytest.raises(DeadlineExceeded) as caught:
            session.run(IMAGE, deadline_ms=1e-6)
        assert caught.value.details["elapsed_ms"] > 1e-6
    for none_left in (0, -1, float("nan")):
        assert "not started" in refused(images, DeadlineExceeded, IMAGE, deadline_ms=none_left)
    refused(images, UsageError, IMAGE, deadline_ms="20")


@pytest.mark.row(47)
def test_use_after_close(runtime: str) -> None:
    session = edgebm.load(DATA / "image.edgebm", target=runtime)
    session.close()
    session.close()
    for call in (lambda: session.run(IMAGE), lambda: session.run(image=IMAGE), session.benchmark):
        with pytest.raises(Closed):
            call()


@pytest.mark.row(47)
def test_closing_and_dropping_during_calls_does_no_harm(runtime: str) -> None:
    session = edgebm.load(DATA / "image.edgebm", target=runtime)
    expected = session.run(IMAGE)["scores"]
    faults: list[str] = []
    started = threading.Barrier(5)

    def work(mine: Session) -> None:
        started.wait()
        with contextlib.suppress(Closed):
            for _ in range(300):
                same = np.array_equal(mine.run(IMAGE)["scores"], expected)
                faults.extend([] if same else ["wrong answer"])

    workers = [threading.Thread(target=work, args=(session,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    started.wait()
    session.close()
    del session
    gc.collect()
    for worker in workers:
        worker.join()
    assert faults == []


@pytest.mark.row(44)
@pytest.mark.parametrize("name", ["image", "echo", "tokens"])
def test_eight_threads_with_inputs_of_their_own(runtime: str, name: str) -> None:
    session = edgebm.load(DATA / f"{name}.edgebm", target=runtime)
    faults: list[int] = []

    def feeds(seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        if name == "tokens":
            shape = (1 + seed % 3, 1 + seed % 5)
            return {"ids": rng.integers(0, 12, shape), "mask": rng.integers(0, 2, shape)}
        return {
            spec.name: rng.normal(size=spec.shape).astype(np.float32) for spec in session.inputs
        }

    expected = {seed: session.run(feeds(seed)) for seed in range(8)}

    def work(seed: int) -> None:
        mine = feeds(seed)
        for _ in range(150):
            got = session.run(mine)
            if any(not np.array_equal(got[key], expected[seed][key]) for key in got):
                faults.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    session.close()
    assert faults == []


def _in_child(session: Session, pipe: Any) -> None:
    try:
        session.run(IMAGE)
        pipe.send("ran")
    except ForkedUse as error:
        pipe.send(error.code)
    pipe.close()
    # A vendor's threads are gone in a forked child: leaving without its destructors is the point.
    os._exit(0)


@pytest.mark.row(45)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_use_in_a_forked_child(runtime: str) -> None:
    with edgebm.load(DATA / "image.edgebm", target=runtime) as session:
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        child = multiprocessing.get_context("fork").Process(
            target=_in_child, args=(session, theirs)
        )
        child.start()
        assert ours.poll(60)
        assert ours.recv() == "forked_use"
        child.join(60)
        session.run(IMAGE)


def test_both_runtimes_give_the_same_answers(
    images: list[Session], tokens: list[Session], echoes: list[Session]
) -> None:
    rng = np.random.default_rng(11)
    x = rng.normal(size=(1, 4)).astype(np.float32)
    calls: list[tuple[list[Session], dict[str, Any]]] = [
        (images, {"image": IMAGE}),
        (tokens, {"ids": rng.integers(0, 12, (3, 6)), "mask": rng.integers(0, 2, (3, 6))}),
        (echoes, {"x": x, "h_in": x}),
    ]
    for sessions, feeds in calls:
        first, *others = [session.run(feeds) for session in sessions]
        for other in others:
            assert list(first) == list(other)
            for name in first:
                assert first[name].dtype == other[name].dtype
                np.testing.assert_allclose(first[name], other[name], rtol=1e-5, atol=1e-6)

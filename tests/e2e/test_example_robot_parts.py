"""Parts of `examples/robot_node`: what travels, the lifecycle, the accounts of both sides."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from example_calls import EXAMPLES
from hypothesis import given
from hypothesis import strategies as st

import edgebm

pytest.importorskip("zenoh")
EXAMPLE = EXAMPLES / "robot_node"
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 255, (4, 5, 3), np.uint8)


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    """Imports modules of the example, and forgets them again: their names are common ones."""
    names = [path.stem for path in EXAMPLE.glob("*.py")]
    held = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(EXAMPLE))
    yield importlib.import_module
    sys.path.remove(str(EXAMPLE))
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(held)


# What travels


def test_frames_and_marks_come_back_as_they_were(example: Any) -> None:
    wire = example("wire")
    for image in (IMAGE, IMAGE[0, 0], IMAGE.astype("<u2")[None], IMAGE.astype("<f4")):
        found = wire.unpack(wire.pack_frame(7, 2**40, 9, image))
        assert (found.kind, found.source, found.seq, found.stamp_ns) == (wire.FRAME, 7, 2**40, 9)
        assert found.image.dtype == image.dtype
        np.testing.assert_array_equal(found.image, image)
    mark = wire.unpack(wire.pack_mark(7, 5, 9))
    assert (mark.kind, mark.seq, mark.image) == (wire.MARK, 5, None)
    for image in (IMAGE.astype(np.float64), np.uint8(3), IMAGE[..., None, None]):
        with pytest.raises(wire.WireError, match="cannot be sent"):
            wire.pack_frame(7, 0, 0, np.asarray(image))


def test_what_is_no_message_is_refused(example: Any) -> None:
    wire = example("wire")
    good = wire.pack_frame(7, 3, 9, IMAGE)
    cases = {
        "magic": (b"JPEG" + good[4:], None),
        "version": (good[:4] + b"\x02\x00" + good[6:], None),
        "kind": (good[:6] + b"\x09\x00" + good[8:], None),
        "type": (good[:32] + b"\x09" + good[33:], 3),
        "shape": (good[:36] + bytes(4) + good[40:], 3),
        "truncated": (good[:-1], 3),
    }
    cases_of_length = [(b"", None), (good[:20], None), (good + b"x", 3)]
    cases_of_length.append((good[:36] + struct.pack("<4I", *[2**32 - 1] * 4) + good[52:], None))
    assert len(wire.unpack(good).image)
    for code, (data, seq) in [*cases.items(), *(("truncated", case) for case in cases_of_length)]:
        with pytest.raises(wire.WireError) as caught:
            wire.unpack(data)
        assert caught.value.code == code
        if seq is not None:
            assert caught.value.message.seq == seq
    with pytest.raises(wire.WireError, match="no payload"):
        wire.unpack(wire.pack_mark(7, 5, 9) + b"x")


def report(example: Any, **more: Any) -> Any:
    wire = example("wire")
    return wire.Report(**{"node": 3, "number": 4, "source": 7, "first": 11, "count": 1,
                          "verdict": wire.Verdict.ANSWERED} | more)  # fmt: skip


def test_reports_come_back_as_they_were(example: Any) -> None:
    wire = example("wire")
    outputs = {"scores": RNG.random((1, 10), np.float32), "n": np.array(3)}
    one = report(example, stamp_ns=1, in_ns=2, out_ns=3, late=True, outputs=outputs)
    found = wire.unpack_report(one.pack())
    assert replace(found, outputs={}) != one  # arrays: compared one by one
    assert (found.stamp_ns, found.in_ns, found.out_ns, found.late) == (1, 2, 3, True)
    for name, wanted in outputs.items():
        assert found.outputs[name].dtype == wanted.dtype
        np.testing.assert_array_equal(found.outputs[name], wanted)
    meta = {"code": "input_shape", "message": "…"}
    failed = report(example, verdict=wire.Verdict.FAILED, meta=meta)
    assert wire.unpack_report(failed.pack()).meta == meta
    short = failed.pack(short=True)
    assert len(short) == wire.REPORT_BYTES
    assert wire.unpack_report(short).first == 11
    for data in (short[:-1], short + b"x", failed.pack()[:-1], b"EBMF" + short[4:]):
        with pytest.raises(wire.WireError):
            wire.unpack_report(data)


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_damaged_report_is_read_or_refused(example: Any, at: int, byte: int) -> None:
    wire = example("wire")
    data = bytearray(report(example, outputs={"scores": np.zeros(3, np.float32)}).pack())
    data[at % len(data)] = byte
    with contextlib.suppress(wire.WireError):
        assert isinstance(wire.unpack_report(bytes(data)), wire.Report)


# The lifecycle


def test_only_the_transitions_of_a_managed_node(example: Any) -> None:
    lifecycle = example("lifecycle")
    legal = {
        ("unconfigured", "configure"): "inactive",
        ("inactive", "activate"): "active",
        ("active", "deactivate"): "inactive",
        ("inactive", "cleanup"): "unconfigured",
        ("unconfigured", "shutdown"): "finalized",
        ("inactive", "shutdown"): "finalized",
        ("active", "shutdown"): "finalized",
    }
    for state in ("unconfigured", "inactive", "active", "finalized"):
        for verb in (*lifecycle.TRANSITIONS, "fly"):
            if (state, verb) in legal:
                assert lifecycle.target(state, verb) == legal[state, verb]
            else:
                with pytest.raises(lifecycle.IllegalTransition):
                    lifecycle.target(state, verb)


def test_last_words_tell_an_end_from_a_death(example: Any) -> None:
    peers = example("bus").Peers()
    assert peers.note("robot/alive/node/5/inactive", here=True) == "node 5 is inactive"
    peers.note("robot/alive/node/5/active", here=True)
    assert not peers.note("robot/alive/node/5/inactive", here=False)
    assert peers.here("node") == {5: {"active"}}
    assert "DIED" in peers.note("robot/alive/node/5/active", here=False)
    assert peers.here("node") == {}
    peers.note("robot/alive/camera/6/active", here=True)
    peers.note("robot/alive/camera/6/finalized", here=True)
    peers.note("robot/alive/camera/6/active", here=False)
    assert "as it should" in peers.note("robot/alive/camera/6/finalized", here=False)


def test_of_two_processes_one_dials_and_a_stranger_dials_all(example: Any) -> None:
    bus = example("bus")
    for one, other in itertools.combinations(bus.ROLES, 2):
        assert (one in bus.dialled(other)) + (other in bus.dialled(one)) == 1
    assert bus.dialled("lifecycle") == bus.ROLES


# The accounts of node and subscriber


@dataclass
class Result:
    """What the ledger reads of a frame loop's result."""

    seq: int
    error: edgebm.EdgebmError | None = None
    outputs: Any = None
    late: bool = False


def test_every_frame_has_one_verdict_and_they_come_in_order(example: Any) -> None:
    wire, said = example("wire"), []
    ledger = example("ledger").Ledger(3, said.append)
    assert not ledger.came(7, 0, 0)  # nobody looks yet
    ledger.start()
    ledger.marked(7, 2)  # two were sent before anybody looked
    for number, seq in enumerate((2, 3, 4, 7)):
        assert ledger.came(7, seq, number)
    assert not ledger.came(7, 4, 9)  # came again
    assert ledger.came(7, 8, ledger.refused(7, 8, "truncated", "…"))
    ledger.settle(Result(2))  # of frame 4: so 2 and 3 were dropped
    assert [(r.verdict.name, r.first, r.count) for r in said] == [
        ("UNSEEN", 0, 2), ("DROPPED", 2, 2), ("ANSWERED", 4, 1), ("MISSED", 5, 2),
    ]  # fmt: skip
    ledger.settle(Result(3, edgebm.errors.DeadlineExceeded("too old")))
    ledger.marked(7, 11)
    ledger.came(7, 11, 4)
    ledger.stop()
    assert [(r.verdict.name, r.first, r.count) for r in said[4:]] == [
        ("FAILED", 7, 1), ("REFUSED", 8, 1), ("MISSED", 9, 2), ("DROPPED", 11, 1),
        ("STOPPED", 12, 0),
    ]  # fmt: skip
    assert said[4].meta["code"] == "deadline_exceeded"
    assert [r.number for r in said] == list(range(9))
    assert ledger.counts["repeated"] == 1
    ledger.start()
    ledger.came(7, 20, 0)
    assert (said[-1].verdict, said[-1].first, said[-1].count) == (wire.Verdict.UNSEEN, 12, 8)


def test_reports_that_did_not_come_are_asked_for(example: Any) -> None:
    wire, came = example("wire"), []
    account = example("account").Account(1)

    def lossy(one: Any) -> None:
        if one.number % 3:
            came.append(one)

    ledger = example("ledger").Ledger(3, lossy)
    ledger.start()
    for number in range(30):
        ledger.came(7, number, number)
        ledger.settle(Result(number))
    ledger.stop()
    for one in came:
        account.report(wire.unpack_report(one.pack()))
    account.behind(3, ledger.number)
    assert account.totals(attended=False)["lost_without_a_report"] == 10
    for node, first, end in account.wanted:
        data = ledger.since(first, end)
        assert len(data) == wire.REPORT_BYTES * (end - first) > 0
        for at in range(0, len(data), wire.REPORT_BYTES):
            assert node == 3
            account.report(wire.unpack_report(data[at : at + wire.REPORT_BYTES]), again=True)
    told = account.totals(attended=False)
    assert (told["sent"], told["answered"], told["recovered"]) == (30, 30, 10)
    assert (told["told_twice"], told["lost_without_a_report"]) == (0, 0)
    assert ledger.since(40, 50) == ledger.since(5, 5) == b""


def test_a_frame_without_a_report_is_found(example: Any) -> None:
    account_of = example("account")
    account = account_of.Account(1)
    for first in (0, 1, 3):
        account.report(report(example, number=first, first=first))
    account.mark(7, 6)
    told = account.totals(attended=False)
    assert (told["sent"], told["answered"]) == (6, 3)
    assert (told["lost_without_a_report"], told["unattended"]) == (1, 2)
    told = account.totals(attended=True)
    assert (told["lost_without_a_report"], told["under_way"]) == (1, 2)
    # A node that is here, and has said nothing of a frame for long.
    account.streams[7].marks[-1] = (account.streams[7].marks[-1][0] - 1000, 6)
    assert account.totals(attended=True)["lost_without_a_report"] == 3
    account.report(report(example, number=4, first=3))
    assert account.told_twice == 1
    # A camera that was there before: from the first frame that was heard of.
    older = account_of.Account(10)
    older.report(report(example, number=80, first=80))
    assert older.totals(attended=True)["sent"] == 1
    assert not older.wanted


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8))))
def test_ranges_are_a_set(example: Any, parts: list[tuple[int, int]]) -> None:
    ranges, plain = example("account").Ranges(), set()
    for first, count in parts:
        new = set(range(first, first + count)) - plain
        assert ranges.add(first, first + count) == len(new)
        plain |= new
    assert ranges.missing(3, 30) == len(set(range(3, 30)) - plain)
    assert len(ranges.ranges) <= len(plain) + 1

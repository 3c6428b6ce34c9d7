from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebm.bundle_writer import write_bundle
from edgebm.errors import SelfTestFailed
from edgebm.runtime.bundle import Bundle, read_bundle
from edgebm.runtime.container import MANIFEST
from edgebm.runtime.npy import npy_bytes
from edgebm.runtime.runner import Session
from edgebm.runtime.selftest import stream_test
from edgebm.runtime.session import load

LSTM = Path(__file__).parents[2] / "device" / "data" / "lstm.edgebm"


def check(bundle: Bundle, session: Session, run: Any = None) -> dict[str, float]:
    variant = next(v for v in bundle.manifest.variants if v.runtime == session.report()["runtime"])
    return stream_test(bundle, variant, run or session.run, session.stream)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_golden_samples_that_follow_each_other_are_stepped_through(runtime: str) -> None:
    with load(LSTM, target=runtime) as session:
        assert set(session.report()["stream_test"]) == {"y"}
        assert session.report()["stream_test"]["y"] < 1e-5
        assert check(read_bundle(LSTM), session) == session.report()["stream_test"]


def test_samples_that_do_not_follow_each_other_are_no_stream(tmp_path: Path) -> None:
    opened = read_bundle(LSTM)
    members = {name: bytes(data) for name, data in opened.members.items() if name != MANIFEST}
    h = opened.golden(2)[0][1]
    members["golden/2/inputs/1.npy"] = npy_bytes(h * np.float32(0.9))
    path = write_bundle(tmp_path / "apart.edgebm", opened.manifest, members)
    one = replace(opened, manifest=replace(opened.manifest, golden=1))
    stateless = replace(opened, manifest=replace(opened.manifest, states=()))
    with load(LSTM) as session:
        assert check(read_bundle(path), session) == {}
        assert check(one, session) == {}
        assert check(stateless, session) == {}


@pytest.mark.row(29)
def test_a_stream_that_answers_otherwise_than_run_fails() -> None:
    with load(LSTM) as session:

        def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
            got = session.run(dict(inputs))
            return {**got, "c_out": got["c_out"] * np.float32(1.01)}

        with pytest.raises(SelfTestFailed, match="in a stream than call by call") as caught:
            check(read_bundle(LSTM), session, run)
    assert caught.value.details["errors"]["c_out"] > 1e-3

"""A board that the host cannot reach: all candidates there, its figures back, and the choice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import X, short_recipe, small

import edgebm
from edgebm.cli.main import main
from edgebm.errors import BundleIncompatible, UsageError
from edgebm.runtime import candidates as board_module
from edgebm.runtime import entries
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.cpu import arch
from edgebm.runtime.trial import Trial
from edgebm.runtime.turns import P99_CALLS

BOARD = f"""
name: far-board
description: a board that is not this machine, or so it says
arch: {arch()}
features: []
runtimes: [onnxruntime, openvino]
threads: [1]
"""
Entry = dict[str, Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with all candidates, and what "the board" measured of it."""
    folder = tmp_path_factory.mktemp("board")
    (folder / "m.onnx").write_bytes(small().to_bytes())
    (folder / "board.yaml").write_text(BOARD)
    compress(folder, all_candidates=True, out="all.edgebm", measurements="host.json")
    command = ["bench", str(folder / "all.edgebm"), "--candidates", "--seconds", "0.01"]
    assert main([*command, "-o", str(folder / "board.json")]) == 0
    return folder


@pytest.fixture
def folder(place: Path, tmp_path: Path) -> Path:
    """The same in a folder of the test's own; what the host found is known, which saves time."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    lines = (place / "host.json").read_bytes().splitlines(keepends=True)
    (tmp_path / "m.json").write_bytes((place / "board.json").read_bytes() + b"".join(lines[1:]))
    return tmp_path


def compress(folder: Path, model: str = "m.onnx", **more: Any) -> edgebm.Result:
    given = {"data": {"x": X}, "target": "board.yaml", "recipe": short_recipe(), **more}
    for key in ("target", "out", "measurements"):
        if given.get(key):
            given[key] = folder / given[key]
    return edgebm.compress(str(folder / model), **given)


def change(path: Path, how: Callable[[Entry], None]) -> None:
    """Rewrite each entry that a board made, with checksums that fit."""
    header, *lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines):
        entry = json.loads(line)
        if entry["kind"].startswith("board"):
            entry.pop("sha256")
            how(entry)
            lines[number] = entries._line(entry)
    path.write_bytes(b"".join([header, *lines]))


def make_fastest(path: Path, name: str) -> None:
    """As if `name` had taken a tenth of what the others took."""

    def how(entry: Entry) -> None:
        if entry["kind"] == "board times":
            took = 1.0 if entry["about"].startswith(f"{name}:") else 10.0
            entry["value"].update(turns_ms=[took] * 3, calls_ms=[took] * 15, dropped="", failed="")

    change(path, how)


def names(path: Path) -> list[str]:
    return [candidate.id for candidate in read_bundle(path).manifest.candidates]


def test_every_candidate_is_in_the_bundle_and_the_chosen_one_runs(folder: Path) -> None:
    manifest = read_bundle(folder / "all.edgebm").manifest
    found = names(folder / "all.edgebm")
    assert len(manifest.variants) == 1
    assert manifest.variants[0].id == found[0], "the order is that of preference"
    assert {name.split("/")[1] for name in found} == {"onnxruntime", "openvino"}
    assert {name.split("/")[2] for name in found} >= {"f32", "int8"}
    with edgebm.load(folder / "all.edgebm", target="onnxruntime") as session:
        assert session.report()["precision"] == manifest.variants[0].precision
    with pytest.raises(BundleIncompatible, match="no variant for 'openvino'"):
        edgebm.load(folder / "all.edgebm", target="openvino")


def test_each_candidate_runs_by_its_whole_name(folder: Path) -> None:
    for name in names(folder / "all.edgebm"):
        with edgebm.load(folder / "all.edgebm", target=name) as session:
            report = session.report()
            assert f"far-board/{report['runtime']}/{report['precision']}/t1" == name
            assert report["self_test"]["y"] <= report["self_test_tolerance"]["y"]


def test_the_report_says_that_nothing_was_timed_and_what_to_do(place: Path) -> None:
    report = json.loads(bytes(read_bundle(place / "all.edgebm").members["report.json"]))
    (note,) = [note for note in report["notes"] if "bench" in note]
    assert "nothing was timed" in note
    assert "--measurements m.json" in note
    tests = report["bundled"]["far-board"]["tests"]
    assert [test["name"] for test in tests] == names(place / "all.edgebm")
    assert all(test["failed"] == "" and test["errors"]["y"] >= 0 for test in tests)
    assert report["measured_on"] is None


def test_an_ordinary_bundle_has_no_trace_of_candidates(folder: Path) -> None:
    result = compress(folder, measurements="host.json", out="plain.edgebm")
    bundle = read_bundle(folder / "plain.edgebm")
    assert "candidates" not in bundle.manifest.to_dict()
    assert not [name for name in bundle.members if name.startswith("candidates")]
    assert "search" not in bundle.manifest.provenance
    assert "bundled" not in result.report


def test_the_choice_follows_the_figures_of_the_board(folder: Path) -> None:
    for name in names(folder / "all.edgebm"):
        make_fastest(folder / "m.json", name)
        report = compress(folder, measurements="m.json").report
        assert f"far-board/{report['after']['candidate']}" == name
        assert report["after"]["p50_ms"] == 1.0
        assert report["after"]["peak_memory_mib"] > 1
        statuses = {c["status"] for c in report["candidates"]}
        assert statuses <= {"chosen", "slower"}


def test_the_report_names_the_board(folder: Path) -> None:
    def how(entry: Entry) -> None:
        if entry["kind"] == "board":
            entry["value"]["machine"]["cpu"] = "Cortex-A76"

    change(folder / "m.json", how)
    result = compress(folder, measurements="m.json", out="a.edgebm")
    assert result.report["verdict"].endswith("Measured on Cortex-A76.")
    assert result.report["measured_on"]["cpu"] == "Cortex-A76"
    page = bytes(read_bundle(folder / "a.edgebm").members["report.html"]).decode()
    assert "<dt>measured on</dt><dd>Cortex-A76" in page
    assert any("measurements were taken" in note for note in result.notes)


def test_equal_measurements_give_equal_bytes(folder: Path) -> None:
    written = []
    for name in ("a.edgebm", "b.edgebm"):
        compress(folder, measurements="m.json", out="x.edgebm", force=True)
        written.append((folder / "x.edgebm").read_bytes())
        (folder / "x.edgebm").rename(folder / name)
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("what", "more"),
    [
        ("calibration samples", {"data": {"x": X + 1}}),
        ("evaluation samples", {"eval": {"x": X[:3]}}),
        ("recipe", {"recipe": "w8"}),
        ("ignored", {"ignored": ["MatMul"]}),
        ("seed", {"seed": 1}),
        ("model", {"model": "other.onnx"}),
        ("target", {"target": "other.yaml"}),
    ],
)
def test_figures_of_something_else_are_refused(
    folder: Path, what: str, more: dict[str, Any]
) -> None:
    (folder / "other.onnx").write_bytes(small().to_bytes().replace(b"h", b"k"))
    (folder / "other.yaml").write_text(BOARD.replace("threads: [1]", "threads: [1, 2]"))
    with pytest.raises(UsageError, match=rf"what differs:.*{what} \(") as caught:
        compress(folder, measurements="m.json", **more)
    assert "measure it again" in caught.value.hint


def test_other_builds_of_the_same_are_refused(folder: Path) -> None:
    """As another version of edgebm may make them."""
    change(folder / "m.json", lambda entry: entry.update(key=entry["key"][::-1]))
    change(folder / "m.json", lambda entry: None)

    def restore(entry: Entry) -> None:
        if entry["kind"] == "board":
            entry["key"] = entry["key"][::-1]

    change(folder / "m.json", restore)
    with pytest.raises(UsageError, match="no figures for onnxruntime/f32/t1") as caught:
        compress(folder, measurements="m.json")
    assert "edgebm 0" in caught.value.hint


def test_a_candidate_without_figures_is_told_and_not_taken(folder: Path) -> None:
    name = names(folder / "all.edgebm")[0]
    make_fastest(folder / "m.json", name)

    def forget(entry: Entry) -> None:
        if entry["about"].startswith(f"{name}:"):
            entry["key"] = "0" * 64

    change(folder / "m.json", forget)
    report = compress(folder, measurements="m.json").report
    assert f"far-board/{report['after']['candidate']}" != name
    (lost,) = [c for c in report["candidates"] if f"far-board/{c['id']}" == name]
    assert lost["why"] == "it was not measured on the board"
    assert any("without figures of the board" in sentence for sentence in report["warnings"])


def test_a_shorter_copy_of_the_file_is_refused(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    whole = (place / "board.json").read_bytes()
    (tmp_path / "m.json").write_bytes(whole[:-40])
    with pytest.raises(UsageError, match=r"it is not whole: \d+ of \d+ entries"):
        compress(tmp_path, measurements="m.json")
    assert (tmp_path / "m.json").exists()


def test_a_file_without_the_board_is_said_to_be_one(folder: Path) -> None:
    result = compress(folder, measurements="host.json")
    assert any("no figures of a board for far-board" in note for note in result.notes)
    assert result.report["after"]["p50_ms"] is None


def test_latency_limits_hold_on_the_board(folder: Path) -> None:
    with pytest.raises(UsageError, match="max_latency_ms cannot be kept for far-board"):
        compress(folder, max_latency_ms=5.0)
    make_fastest(folder / "m.json", "none")
    result = compress(folder, measurements="m.json", max_latency_ms=5.0)
    assert result.exit_code == 3
    assert "p50 (too few calls for p99) is 10.000 ms" in result.report["missed"][0]


def test_all_candidates_need_a_bundle(folder: Path) -> None:
    with pytest.raises(UsageError, match="no bundle to go into"):
        compress(folder, all_candidates=True)


def measured(folder: Path) -> dict[str, Any]:
    """What the board wrote, by candidate; its facts are under the name of the target."""
    found = [json.loads(line) for line in (folder / "new.json").read_text().splitlines()[1:]]
    return {each["about"].split(":")[0].removesuffix(" failed"): each["value"] for each in found}


def bench(folder: Path, *more: str) -> int:
    command = ["bench", str(folder / "all.edgebm"), "--candidates", "--seconds", "0.01"]
    return main([*command, "-o", str(folder / "new.json"), *more])


def test_what_fails_on_the_board_is_recorded_with_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = names(folder / "all.edgebm")[0]
    try_out = board_module.try_out

    def died(built: Any, feeds: Any) -> Trial:
        bundle = read_bundle(folder / "all.edgebm")
        lost = bundle.files(next(c for c in bundle.manifest.candidates if c.id == dying))
        return Trial(None, "it died of SIGILL") if built.files == lost else try_out(built, feeds)

    monkeypatch.setattr(board_module, "try_out", died)
    assert bench(folder) == 0
    found = measured(folder)
    assert found[dying]["failed"] == "it died of SIGILL"
    assert found[dying]["calls_ms"] == []
    others = [value for name, value in found.items() if name not in {dying, "far-board"}]
    assert all(value["calls_ms"] and value["peak_mib"] > 1 for value in others)
    (folder / "new.json").rename(folder / "m.json")
    report = compress(folder, measurements="m.json").report
    (lost,) = [c for c in report["candidates"] if f"far-board/{c['id']}" == dying]
    assert (lost["status"], lost["why"]) == ("failed", "on the board: it died of SIGILL")


def test_a_board_with_fewer_threads_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(board_module, "usable_threads", lambda: 0)
    assert bench(folder) == 5
    told = capsys.readouterr().err
    assert "1 threads are wanted, 0 may be used here" in told
    assert "no candidate runs here" in told
    assert not (folder / "new.json").exists()


def test_the_facts_of_the_board_are_written(folder: Path, capsys: Any) -> None:
    assert bench(folder, "--json") == 0
    facts = measured(folder)["far-board"]
    bundle = read_bundle(folder / "all.edgebm")
    assert facts["bundle"] == bundle.digest
    assert facts["candidates"] == names(folder / "all.edgebm")
    assert {"cpu", "features", "threads", "governor", "runtimes"} <= facts["machine"].keys()
    printed = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in printed["measured"]] == facts["candidates"]
    for each in printed["measured"]:
        assert each["p50_ms"] > 0
        assert (each["p99_ms"] is not None) == (each["calls"] >= P99_CALLS)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--candidates",), "name it with --out"),
        (("-o", "x.json"), "only with --candidates"),
        (("--candidates", "-o", "x.json", "--threads", "1"), "neither --threads nor --require"),
        (("--candidates", "-o", "x.json", "--require", "p50=1ms"), "neither --threads"),
        (("--candidates", "-o", "board.json"), "exists; give --force"),
        (("--candidates", "-o", "none/x.json"), "does not exist"),
        (("--candidates", "-o", "x.json", "--target", "jetson"), "no variant for 'jetson'"),
    ],
)
def test_options_that_do_not_fit(
    folder: Path, more: Sequence[str], told: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(folder)
    assert main(["bench", "all.edgebm", *more]) in {2, 4}
    assert told in capsys.readouterr().err
    assert not Path("x.json").exists()


def test_a_bundle_of_one_choice_cannot_be_measured_so(folder: Path, capsys: Any) -> None:
    compress(folder, measurements="host.json", out="plain.edgebm")
    command = ["bench", str(folder / "plain.edgebm"), "--candidates"]
    assert main([*command, "-o", str(folder / "x.json")]) == 2
    assert "--all-candidates" in capsys.readouterr().err


def test_verify_and_inspect_show_all_candidates(folder: Path, capsys: Any) -> None:
    assert main(["verify", str(folder / "all.edgebm")]) == 0
    out = capsys.readouterr().out
    assert out.count("passed") == len(names(folder / "all.edgebm"))
    assert main(["inspect", str(folder / "all.edgebm")]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in names(folder / "all.edgebm"))


def test_answers_of_candidates_are_close(folder: Path) -> None:
    answers = []
    for name in names(folder / "all.edgebm"):
        with edgebm.load(folder / "all.edgebm", target=name) as session:
            answers.append(session.run(X[:1])["y"])
    assert all(np.linalg.norm(a - answers[0]) < 0.2 * np.linalg.norm(a) for a in answers)

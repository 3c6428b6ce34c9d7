"""`examples/robot_node`: three processes over Zenoh that survive each other's death."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_calls import call, edgebm_command, python
from robot_processes import BAD_CAMERA, EXAMPLE, ORDERS, Robot, adds_up

pytest.importorskip("zenoh")
pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `train.py` and `compress.sh` write."""
    folder = tmp_path_factory.mktemp("robot") / "files"
    edgebm_command(folder)
    assert "test pictures" in python(folder, EXAMPLE / "train.py", "--out", folder, "--epochs", 1)
    # So little trained, it may lose what it wants.
    short = ("--threads", 1, "--measure-seconds", 0.3, "--max-drop", 100)
    done = call(folder, "sh", EXAMPLE / "compress.sh", folder, *short)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Robot]:
    with Robot(tmp_path) as processes:
        yield processes


def figures(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.read_text())
    assert adds_up(told["frames"]), told
    assert told["frames"]["lost_without_a_report"] == told["frames"]["told_twice"] == 0, told
    return told


def test_a_short_run_loses_nothing_and_leaves_nothing(
    robot: Robot, files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "told.json"
    launch = [sys.executable, EXAMPLE / "launch.py", files / "digits.edgebm", "--seconds", 3]
    launch += ["--frames", files / "camera.npz", "--json", out, *robot.ports]
    robot.run("launch", *launch)
    assert robot.wait("launch") == 0, robot.shown("launch")
    told = figures(out)
    frames = told["frames"]
    assert frames["answered"] > 0
    assert frames["unattended"] == frames["under_way"] == told["deaths"] == 0
    assert told["node_ms"]["n"] == told["age_ms"]["n"] > 0
    assert re_ended(robot.shown("launch")) == {"camera", "node"}
    for port in robot.ports[1:]:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", int(port)))


def re_ended(shown: str) -> set[str]:
    """Who the subscriber says has ended as it should."""
    lines = [line.split() for line in shown.splitlines() if "as it should" in line]
    return {line[2] for line in lines if line[1] == "s"}


def test_each_of_them_survives_the_death_of_the_others(
    robot: Robot, files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "told.json"
    options = {
        "subscriber": ["--json", out, "--stale-s", 3],
        "node": [files / "digits.edgebm", "--autostart"],
        "camera": ["--frames", files / "camera.npz"],
    }
    for role, more in options.items():
        robot.start(role, *more)
    robot.awaits("node", r"camera \d+ is active")
    robot.awaits("subscriber", "answers come")
    for role in ("node", "camera"):
        robot.forget()
        robot.kill(role)
        others = options.keys() - {role}
        for other in others:
            robot.awaits(other, rf"{role} \d+ DIED without a word")
        robot.awaits("subscriber", "STALE: no answer")
        robot.start(role, *options[role])
        new = robot.awaits(role, rf"{role} (\d+):")[1]
        for other in others:
            robot.awaits(other, rf"{role} {new} is active")
        robot.awaits("subscriber", "answers come")
    assert "ANOTHER NODE answers" in robot.shown("subscriber")
    robot.kill("subscriber")
    for other in ("camera", "node"):
        robot.awaits(other, r"subscriber \d+ DIED without a word")
    robot.start("subscriber", *options["subscriber"])
    robot.awaits("subscriber", "node is active")
    assert robot.end("camera", signal.SIGINT) == 0
    robot.awaits("subscriber", r"camera \d+ has ended as it should")
    assert robot.end("node") == 0
    robot.awaits("subscriber", r"node \d+ has ended as it should")
    assert robot.end("subscriber", signal.SIGINT) == 0
    told = figures(out)
    assert told["frames"]["answered"] > 0
    assert told["frames"]["unattended"] == told["deaths"] == 0


def test_the_launcher_starts_a_killed_node_again(
    robot: Robot, files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "told.json"
    launch = [sys.executable, EXAMPLE / "launch.py", files / "digits.edgebm", "--respawn"]
    launch += ["--kill", "node", "--after", 1]
    launch += ["--frames", files / "camera.npz", "--json", out, *robot.ports]
    robot.run("launch", *launch)
    robot.awaits("launch", "ANOTHER NODE answers")
    assert robot.end("launch") == 0, robot.shown("launch")
    told = figures(out)
    assert (told["deaths"], told["node_restarts"]) == (1, 1)
    # The account goes on over the death, from the camera's first frame on.
    assert told["frames"]["unseen"] > 0
    assert told["frames"]["answered"] > 0


def test_what_is_too_much_is_dropped_and_told(robot: Robot, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "told.json"
    launch = [sys.executable, EXAMPLE / "launch.py", files / "digits.edgebm", "--seconds", 3]
    launch += ["--fps", 200, "--slow", 40, "--deadline-ms", 1000]
    launch += ["--frames", files / "camera.npz", "--json", out, *robot.ports]
    robot.run("launch", *launch)
    assert robot.wait("launch") == 0, robot.shown("launch")
    frames = figures(out)["frames"]
    assert frames["dropped"] > frames["answered"] > 0


# What is wrong with frames, bundles and orders


def test_bad_frames_have_a_report_and_the_node_goes_on(
    robot: Robot, files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "told.json"
    robot.start("subscriber", "--json", out)
    robot.start("node", files / "digits.edgebm", "--autostart")
    robot.awaits("subscriber", "node is active")
    go = tmp_path / "go"
    robot.run("bad", sys.executable, "-c", BAD_CAMERA, go, *robot.ports[1:])
    for source in (1001, 1002):
        robot.awaits("node", f"camera {source} is active")
    go.touch()
    assert robot.wait("bad") == 0, robot.shown("bad")
    robot.awaits("subscriber", r"camera 1002 has ended as it should")
    robot.awaits("subscriber", r"two cameras on robot/camera/frame: 1001 is answered, 1002 is not")
    assert robot.end("node") == 0
    robot.awaits("subscriber", r"node \d+ has ended as it should")
    assert robot.end("subscriber") == 0
    told = json.loads(out.read_text())
    one, two = (told["frames"]["cameras"][source] for source in ("1001", "1002"))
    assert (one["answered"], one["failed"], one["refused"], one["missed"]) == (2, 2, 1, 4)
    assert (one["sent"], two["sent"], two["refused"]) == (9, 1, 1)
    codes = {"input_shape", "input_dtype", "truncated", "two_cameras"}
    assert told["refusals"] == dict.fromkeys(codes, 1)
    faults = told["diagnostics"]["faults"]
    # Neither source nor number of these two can be believed.
    assert faults["refused_version"] == 1
    assert faults["refused_truncated"] == 2
    assert faults["repeated"] == 1
    assert "health ERROR" in robot.shown("subscriber")


def test_a_refused_bundle_and_orders_at_the_wrong_time(
    robot: Robot, files: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "lane.edgebm"
    bundle.write_bytes(b"no bundle")
    robot.start("node", bundle)
    good = files / "digits.edgebm"
    robot.run("orders", sys.executable, "-c", ORDERS, bundle, good, *robot.ports[1:])
    assert robot.wait("orders") == 0, robot.shown("orders")
    told = [json.loads(line) for line in robot.shown("orders").splitlines()]
    assert [(one["state"], one.get("code", "")) for one in told] == [
        ("unconfigured", ""),
        ("unconfigured", "bundle_format"),
        ("unconfigured", "illegal_transition"),
        ("inactive", ""),
        ("inactive", "illegal_transition"),
        ("active", ""),
        ("active", "illegal_transition"),
        ("inactive", ""),
        ("active", ""),
        ("inactive", ""),
        ("unconfigured", ""),
        ("unconfigured", "illegal_transition"),
        ("inactive", ""),
        ("finalized", ""),
    ]
    assert "lane.edgebm" in told[1]["message"]
    assert told[1]["hint"]
    assert told[1]["exit_code"] == 4
    assert told[3]["report"]["inputs"] == ["image: uint8[1, 32, 32, 3]"]
    assert robot.wait("node") == 0


def test_programs_that_cannot_start_say_why(robot: Robot, files: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", pictures=np.zeros(3))
    for frames in (tmp_path / "none.npz", tmp_path / "other.npz"):
        robot.start("camera", "--frames", frames)
        assert robot.wait("camera") == 2
        assert "has no frames" in robot.shown("camera")
    shutil.copy(files / "camera.npz", tmp_path)
    robot.start("camera", "--frames", tmp_path / "camera.npz")
    robot.awaits("camera", "frames a second")
    robot.start("node", tmp_path / "none.edgebm", "--autostart")
    assert robot.wait("node") == 2
    assert "usage_error" in robot.shown("node")
    first = robot.shown("camera")
    robot.run("second", sys.executable, EXAMPLE / "camera.py",
              "--frames", files / "camera.npz", *robot.ports)  # fmt: skip
    assert robot.wait("second") == 5
    assert "Is another camera running?" in robot.shown("second")
    assert "Traceback" not in first + robot.shown("second")
    assert robot.end("camera") == 0

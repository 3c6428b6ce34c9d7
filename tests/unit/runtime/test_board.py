from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgebm.runtime.board import Board, read_board, stopped_between, throttled_between

CPU = "sys/devices/system/cpu"
THERMAL = "sys/class/thermal"


def put(root: Path, files: dict[str, object]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{text}\n")


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    assert read_board(tmp_path) == Board()
    assert Board().temperature_c is None
    assert throttled_between(Board(), Board()) == []


def test_this_machine_can_be_read() -> None:
    json.dumps(read_board().to_dict())


def test_temperatures_by_zone_without_sensors_that_are_off(tmp_path: Path) -> None:
    zones = [("cpu", "45500"), ("gpu", "51000"), ("cpu", "46000"), ("off", "-274000"), ("x", "?")]
    for index, (kind, value) in enumerate(zones):
        put(tmp_path, {f"{THERMAL}/thermal_zone{index}/type": kind})
        put(tmp_path, {f"{THERMAL}/thermal_zone{index}/temp": value})
    put(tmp_path, {f"{THERMAL}/thermal_zone9/type": "no temperature"})
    board = read_board(tmp_path)
    assert board.temperatures_c == {"cpu": 45.5, "gpu": 51.0, "cpu (thermal_zone2)": 46.0}
    assert board.temperature_c == 51.0
    assert board.hot == ()


@pytest.mark.parametrize(
    ("trips", "temp", "words"),
    [
        ([("passive", 85)], 80, "soc is at 80 C; at 85 C the board is throttled"),
        ([("passive", 85)], 79, ""),
        # Of two passive points the lower one only begins to watch; a fan is no consequence.
        ([("passive", 70), ("passive", 85), ("active", 50), ("critical", 115)], 75, ""),
        ([("critical", 105), ("hot", 100)], 96, "at 100 C the board is switched off"),
        # An empty trip point.
        ([("passive", 0)], 79, ""),
    ],
)
def test_a_board_near_its_limit_is_hot(
    trips: list[tuple[str, int]], temp: int, words: str, tmp_path: Path
) -> None:
    zone = f"{THERMAL}/thermal_zone0"
    put(tmp_path, {f"{zone}/type": "soc", f"{zone}/temp": temp * 1000})
    for index, (kind, limit) in enumerate(trips):
        put(tmp_path, {f"{zone}/trip_point_{index}_type": kind})
        put(tmp_path, {f"{zone}/trip_point_{index}_temp": limit * 1000})
    hot = read_board(tmp_path).hot
    assert len(hot) == bool(words)
    assert all(words in sentence for sentence in hot)


@pytest.mark.row(61)
def test_only_cooling_that_slows_the_processor_down_is_throttling(tmp_path: Path) -> None:
    devices = [("cpufreq-cpu0", 3), ("pwm-fan", 4), ("Processor", 0), ("cpu-throttle-alert", 1)]
    for index, (kind, state) in enumerate(devices):
        put(tmp_path, {f"{THERMAL}/cooling_device{index}/type": kind})
        put(tmp_path, {f"{THERMAL}/cooling_device{index}/cur_state": state})
    throttled = read_board(tmp_path).throttled
    assert len(throttled) == 2
    assert "cpufreq-cpu0 slows the processor down (state 3)" in throttled[0]
    assert "cpu-throttle-alert" in throttled[1]


@pytest.mark.row(61)
def test_counters_that_rise_mean_throttling_meanwhile(tmp_path: Path) -> None:
    counters = [
        f"{CPU}/cpu0/thermal_throttle/core_throttle_count",
        f"{CPU}/cpu1/thermal_throttle/package_throttle_count",
    ]
    put(tmp_path, dict.fromkeys(counters, 7))
    put(tmp_path, {"sys/class/hwmon/hwmon1/oc2_event_cnt": 0})
    before = read_board(tmp_path)
    assert before.events == {"heat": 14, "over_current": 0}
    assert before.throttled == ()
    assert throttled_between(before, read_board(tmp_path)) == []
    put(tmp_path, {counters[1]: 8, "sys/class/hwmon/hwmon1/oc2_event_cnt": 1})
    found = throttled_between(before, read_board(tmp_path))
    assert found == [
        "the processor was throttled because of heat",
        "the board was throttled because of over-current",
    ]


def test_what_the_firmware_of_a_raspberry_pi_says(tmp_path: Path) -> None:
    path = "sys/devices/platform/soc/soc:firmware/get_throttled"
    put(tmp_path, {path: "50000"})
    before = read_board(tmp_path)
    assert before.throttled == ()
    assert before.events == {"under_voltage": 1, "capped": 0, "throttled": 1, "soft_limit": 0}
    put(tmp_path, {path: "d0008"})
    after = read_board(tmp_path)
    assert after.throttled == ("the firmware's soft temperature limit is reached",)
    assert throttled_between(before, after) == [
        "the firmware's soft temperature limit is reached",
        "the firmware's soft temperature limit was reached",
    ]


def test_clocks_and_a_limit_that_falls(tmp_path: Path) -> None:
    for core, (now, limit, most) in enumerate([(600, 1500, 1800), (1200, 1500, 2400)]):
        folder = f"{CPU}/cpufreq/policy{core}"
        put(
            tmp_path,
            {
                f"{folder}/scaling_cur_freq": now * 1000,
                f"{folder}/scaling_max_freq": limit * 1000,
                f"{folder}/cpuinfo_max_freq": most * 1000,
                f"{folder}/scaling_governor": "schedutil",
            },
        )
    before = read_board(tmp_path)
    assert (before.clock_mhz, before.clock_limit_mhz, before.clock_max_mhz) == (1200, 1500, 2400)
    assert before.governor == "schedutil"
    # A limit that stands still is a power mode.
    assert throttled_between(before, before) == []
    for core in range(2):
        put(tmp_path, {f"{CPU}/cpufreq/policy{core}/scaling_max_freq": 1_000_000})
    found = throttled_between(before, read_board(tmp_path))
    assert found == ["the highest clock allowed fell from 1500 to 1000 MHz"]


def test_the_clock_where_there_is_no_driver_for_it(tmp_path: Path) -> None:
    put(tmp_path, {"proc/cpuinfo": "cpu MHz\t\t: 2596.092\n\ncpu MHz\t\t: 3000.5"})
    board = read_board(tmp_path)
    assert (board.clock_mhz, board.clock_limit_mhz) == (3000.5, None)


def test_power_rails(tmp_path: Path) -> None:
    folder = "sys/class/hwmon/hwmon3"
    put(
        tmp_path,
        {
            f"{folder}/name": "ina3221",
            f"{folder}/in1_label": "VDD_IN",
            f"{folder}/in1_input": 5000,
            f"{folder}/curr1_input": 1200,
            f"{folder}/in7_label": "sum of shunt voltages",
            "sys/class/hwmon/hwmon4/name": "coretemp",
            "sys/class/hwmon/hwmon4/in1_label": "other",
        },
    )
    assert read_board(tmp_path).power_w == {"VDD_IN": 6.0}


def test_stops_by_a_quota_of_any_parent(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b",
            "sys/fs/cgroup/a/cpu.stat": "nr_periods 9\nnr_throttled 2\n",
            "sys/fs/cgroup/a/b/cpu.stat": "nr_throttled 1\nthrottled_usec 5\n",
        },
    )
    before = read_board(tmp_path)
    assert before.quota_stops == 3
    put(tmp_path, {"sys/fs/cgroup/a/cpu.stat": "nr_throttled 6"})
    after = read_board(tmp_path)
    assert stopped_between(before, after) == ["a cgroup's CPU quota stopped its processes 4 times"]
    # A setting of the place, not a fault of the board.
    assert throttled_between(before, after) == []


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    for path in ("thermal_zone0/temp", "cooling_device0/cur_state"):
        (tmp_path / THERMAL / path).mkdir(parents=True)
    link = tmp_path / CPU / "cpufreq/policy0/scaling_cur_freq"
    link.parent.mkdir(parents=True)
    link.symlink_to("nowhere")
    (tmp_path / CPU / "cpu0/thermal_throttle").mkdir(parents=True)
    (tmp_path / CPU / "cpu0/thermal_throttle/core_throttle_count").write_bytes(b"\xff\xfe")
    assert read_board(tmp_path) == Board()

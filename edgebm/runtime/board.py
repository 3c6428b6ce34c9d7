"""What the system says about the board: temperatures, clocks, throttling, power.

Everything is read from files of the Linux kernel. What is missing or cannot be read is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgebm.runtime.cpu import quota_stops
from edgebm.runtime.files import read_or_empty

# A board this close to the temperature at which it is throttled is hot.
HOT_WITHIN_C = 5.0
# Sensors that are switched off give figures that no board has.
_POSSIBLE_C = (-60.0, 200.0)
_TRIPS_C = (20.0, 150.0)
# Cooling devices that cool by slowing the processor down; others are fans.
_SLOWING = re.compile(r"cpufreq|devfreq|throttle|powerclamp|^idle-|^Processor$")
# Bits of a Raspberry Pi's `get_throttled`; 16 bits higher: it has been so since boot.
_PI_BITS = {"under_voltage": 0, "capped": 1, "throttled": 2, "soft_limit": 3}
_PI_NOW = {
    "under_voltage": "the supply voltage is too low",
    "capped": "the firmware caps the clock",
    "throttled": "the firmware throttles the processor",
    "soft_limit": "the firmware's soft temperature limit is reached",
}
# What a count that rises means.
_RISEN = {
    "heat": "the processor was throttled because of heat",
    "over_current": "the board was throttled because of over-current",
    "under_voltage": "the supply voltage was too low",
    "capped": "the firmware capped the clock",
    "throttled": "the firmware throttled the processor",
    "soft_limit": "the firmware's soft temperature limit was reached",
}


@dataclass(frozen=True, slots=True)
class Board:
    """The state of a board at one moment.

    Attributes:
        temperatures_c: degrees Celsius by the name of the thermal zone.
        hot: a sentence for each zone within 5 C of where it is throttled or switched off.
        throttled: a sentence for each thing that holds the clock down now.
        events: how often throttling began since boot, by cause; 1 where the board only says that
            it happened.
        quota_stops: how often a cgroup's CPU quota stopped processes; None without a count.
        clock_mhz: of the fastest core now; None where it is not told, as the two below.
        clock_limit_mhz: the highest clock allowed now, by people, by the power mode or by heat.
        clock_max_mhz: the highest clock of the hardware.
        governor: what chooses the clock, such as "performance"; "" where it is not told.
        power_w: watts by the name of the power rail, where the board has INA3221 monitors.
    """

    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    hot: tuple[str, ...] = ()
    throttled: tuple[str, ...] = ()
    events: Mapping[str, int] = field(default_factory=dict)
    quota_stops: int | None = None
    clock_mhz: float | None = None
    clock_limit_mhz: float | None = None
    clock_max_mhz: float | None = None
    governor: str = ""
    power_w: Mapping[str, float] = field(default_factory=dict)

    @property
    def temperature_c(self) -> float | None:
        """Of the hottest zone."""
        return max(self.temperatures_c.values(), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain = asdict(self)
        return plain | {"hot": list(self.hot), "throttled": list(self.throttled)}


def read_board(root: Path = Path("/")) -> Board:
    """Look at the board now; some milliseconds. `root` is where `sys` and `proc` are."""
    temperatures, hot = _zones(root)
    slowed, events = _throttling(root)
    clocks = [_highest_mhz(root, name) for name in ("scaling_cur", "scaling_max", "cpuinfo_max")]
    return Board(
        temperatures_c=temperatures,
        hot=hot,
        throttled=slowed,
        events=events,
        quota_stops=quota_stops(root),
        clock_mhz=clocks[0] or _cpuinfo_mhz(root),
        clock_limit_mhz=clocks[1],
        clock_max_mhz=clocks[2],
        governor=_governor(root),
        power_w=_rails(root),
    )


def throttled_between(before: Board, after: Board) -> list[str]:
    """A sentence for each sign that the board was throttled from one look to the other."""
    found = list(dict.fromkeys((*before.throttled, *after.throttled)))
    for name, count in after.events.items():
        if count > before.events.get(name, count):
            found.append(_RISEN[name])
    old, new = before.clock_limit_mhz, after.clock_limit_mhz
    if old is not None and new is not None and new < old:
        found.append(f"the highest clock allowed fell from {old:.0f} to {new:.0f} MHz")
    return found


def stopped_between(before: Board, after: Board) -> list[str]:
    """A sentence if a cgroup's CPU quota stopped processes from one look to the other."""
    stops = (after.quota_stops or 0) - (before.quota_stops or 0)
    return [f"a cgroup's CPU quota stopped its processes {stops} times"] if stops > 0 else []


def _zones(root: Path) -> tuple[dict[str, float], tuple[str, ...]]:
    temperatures: dict[str, float] = {}
    hot = []
    for zone in _matches(root, "sys/class/thermal/thermal_zone*"):
        value = _number(zone / "temp")
        if value is None or not _POSSIBLE_C[0] <= value / 1e3 <= _POSSIBLE_C[1]:
            continue
        name = read_or_empty(zone / "type").strip() or zone.name
        if name in temperatures:
            name = f"{name} ({zone.name})"
        temperatures[name] = value / 1e3
        limit = _limit(zone)
        if limit is not None and value / 1e3 >= limit[0] - HOT_WITHIN_C:
            hot.append(
                f"{name} is at {value / 1e3:.0f} C; at {limit[0]:.0f} C the board is {limit[1]}"
            )
    return temperatures, tuple(hot)


def _limit(zone: Path) -> tuple[float, str] | None:
    """The temperature at which a zone has consequences beyond a fan, and which."""
    trips: dict[str, list[float]] = {}
    for path in _matches(zone, "trip_point_*_type"):
        value = _number(path.with_name(path.name.replace("_type", "_temp")))
        if value is not None and _TRIPS_C[0] < value / 1e3 < _TRIPS_C[1]:
            trips.setdefault(read_or_empty(path).strip(), []).append(value / 1e3)
    # Of two passive points the lower one only begins to watch.
    if passive := trips.get("passive"):
        return max(passive), "throttled"
    critical = [*trips.get("hot", ()), *trips.get("critical", ())]
    return (min(critical), "switched off") if critical else None


def _throttling(root: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """What holds the clock down now, and counts of how often something did."""
    now = []
    for device in _matches(root, "sys/class/thermal/cooling_device*"):
        kind, state = read_or_empty(device / "type").strip(), _number(device / "cur_state")
        if state is not None and state > 0 and _SLOWING.search(kind):
            now.append(f"the cooling device {kind} slows the processor down (state {state})")
    events: dict[str, int] = {}
    counters = {
        "heat": "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count",
        "over_current": "sys/class/hwmon/hwmon*/oc*_event_cnt",
    }
    for name, pattern in counters.items():
        counts = [
            count for path in _matches(root, pattern) if (count := _number(path)) is not None
        ]
        if counts:
            events[name] = sum(counts)
    for path in _matches(root, "sys/devices/platform/soc*/*firmware/get_throttled"):
        bits = _number(path, base=16)
        if bits is not None:
            now += [_PI_NOW[name] for name, bit in _PI_BITS.items() if bits >> bit & 1]
            events |= {name: bits >> (bit + 16) & 1 for name, bit in _PI_BITS.items()}
    return tuple(now), events


def _highest_mhz(root: Path, name: str) -> float | None:
    paths = _matches(root, f"sys/devices/system/cpu/cpufreq/policy*/{name}_freq")
    return max((khz / 1e3 for path in paths if (khz := _number(path))), default=None)


def _cpuinfo_mhz(root: Path) -> float | None:
    found = re.findall(r"^cpu MHz\s*:\s*([0-9.]+)$", read_or_empty(root / "proc/cpuinfo"), re.M)
    return max(map(float, found), default=None)


def _governor(root: Path) -> str:
    paths = _matches(root, "sys/devices/system/cpu/cpufreq/policy*/scaling_governor")
    return ", ".join(sorted({read_or_empty(path).strip() for path in paths} - {""}))


def _rails(root: Path) -> dict[str, float]:
    rails = {}
    for monitor in _matches(root, "sys/class/hwmon/hwmon*"):
        if read_or_empty(monitor / "name").strip() != "ina3221":
            continue
        for path in _matches(monitor, "in*_label"):
            number = path.name.removeprefix("in").removesuffix("_label")
            millivolts = _number(monitor / f"in{number}_input")
            milliamperes = _number(monitor / f"curr{number}_input")
            if millivolts is not None and milliamperes is not None:
                rails[read_or_empty(path).strip()] = millivolts * milliamperes / 1e6
    return rails


def _matches(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _number(path: Path, base: int = 10) -> int | None:
    try:
        return int(read_or_empty(path).strip(), base)
    except ValueError:
        return None

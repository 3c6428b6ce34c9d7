"""`edgebm doctor`: what this device has, found out without dying of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

import click

from edgebm.cli.output import emit_json, json_option
from edgebm.cli.text import facts, table
from edgebm.runtime.engines import RUNTIMES
from edgebm.runtime.machine import describe_machine

EXAMPLE = """\
\b
Examples:
  edgebm doctor
  edgebm doctor --json
"""
_TIMEOUT_S = 120
_PROBE = """
import json, sys
from edgebm.errors import EdgebmError
from edgebm.runtime.engines.vendors import usable_version
try:
    found = {"version": usable_version(sys.argv[1]).partition("-")[0]}
except EdgebmError as error:
    found = {"why": str(error), "hint": error.hint}
print("\\n" + json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a runtime loads here, and if not, why."""

    runtime: str
    version: str = ""
    why: str = ""
    hint: str = ""

    @property
    def loads(self) -> bool:
        return not self.why


@click.command(epilog=EXAMPLE)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show the processor, the threads that may be used and the runtimes that load.

    Each runtime is imported in a process of its own, so that one that crashes is reported like
    any other. Exits with 5 if none loads.
    """
    probes = [probe(runtime) for runtime in RUNTIMES]
    machine = describe_machine()
    notes = advice(machine)
    if as_json:
        emit_json({"machine": machine, "runtimes": list(map(asdict, probes)), "advice": notes})
    else:
        rows = [(p.runtime, p.version if p.loads else p.why, p.hint) for p in probes]
        shown = {name: _shown(value) for name, value in machine.items()}
        shown["throttled"] = "yes" if machine["throttled"] else "no"
        click.echo(facts(shown) + "\n\n" + table(("runtime", "version", "what to do"), rows))
        for note in notes:
            click.echo(f"note: {note}", err=True)
    ctx.exit(0 if any(p.loads for p in probes) else 5)


def probe(runtime: str, code: str = _PROBE) -> Probe:
    """Import a runtime, and look for its GPU, in a child process."""
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, a name from our own list
            [sys.executable, "-c", code, runtime],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(runtime, why=f"the import takes more than {_TIMEOUT_S} s")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return Probe(runtime, why=f"the import dies of {name}", hint="try another version of it")
    try:
        return Probe(runtime, **json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Probe(runtime, why=f"the import ends with code {done.returncode}: {last}")


def advice(machine: dict[str, Any]) -> list[str]:
    """What makes measurements unsteady or answers slow on this machine."""
    notes = []
    if machine["governor"] not in {"", "performance"}:
        notes.append(f"the CPU governor is '{machine['governor']}': clocks change between calls")
    limit, most = machine["clock_limit_mhz"], machine["clock_max_mhz"]
    if limit is not None and most is not None and limit < most:
        notes.append(
            f"the clock is limited to {limit:.0f} of {most:.0f} MHz: by a power mode, or by heat"
        )
    notes += machine["throttled"]
    quota = machine["cgroup_cpus"]
    if quota is not None:
        notes.append(f"a cgroup allows {quota:g} CPUs: calls wait when the quota is used up")
    if machine["arch"] == "x86_64" and not {"avx512_vnni", "avx_vnni"} & set(machine["features"]):
        notes.append("the processor has no VNNI: int8 is less of a gain here")
    return notes


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)

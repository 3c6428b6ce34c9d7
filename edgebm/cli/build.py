"""`edgebm build`: compile now, so that later starts need not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edgebm.cli.build_progress import shown_on_stderr
from edgebm.cli.options import trust_option
from edgebm.cli.output import emit_json, json_option
from edgebm.cli.text import facts, file_size, table
from edgebm.errors import EngineStale, ResourceError, UsageError
from edgebm.runtime.build_rules import BuildRules
from edgebm.runtime.build_rules import Wanted as WantedBuild
from edgebm.runtime.cache_place import CacheFolder, wanted_cache
from edgebm.runtime.cache_store import Store, open_store
from edgebm.runtime.engines.building import BUILD_S
from edgebm.runtime.select import AUTO
from edgebm.runtime.session import load
from edgebm.runtime.trial import TRIAL_S

EXAMPLE = """\
\b
Examples:
  edgebm build model.edgebm
  edgebm build model.edgebm --cache /data/edgebm --json
  edgebm build --list
"""
_STATES = {
    "hit": "it was stored already",
    "stored": "stored",
    "off": "not stored",
}


@click.command(epilog=EXAMPLE)
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder. Default: EDGEBM_CACHE, /var/lib/edgebm if it is yours, or ~/.cache/edgebm.",
)
@click.option("--target", default=AUTO, help="A target or runtime, as for edgebm.load.")
@click.option("--threads", type=int, help="As for edgebm.load. Default: measured as best.")
@click.option(
    "--time-limit",
    "limit_s",
    type=click.FloatRange(min=0, min_open=True),
    default=BUILD_S,
    show_default=True,
    metavar="SECONDS",
    help="When a build that takes minutes (TensorRT) is ended.",
)
@click.option(
    "--workspace-mib",
    type=click.IntRange(min=1),
    metavar="MIB",
    help="The most scratch memory that a layer may have in such a build. Default: a part of what "
    "is free.",
)
@trust_option
@click.option("--list", "shown", is_flag=True, help="Show what is in the folder.")
@click.option("--clear", is_flag=True, help="First delete what is in the folder.")
@json_option
def command(
    bundle: Path | None,
    *,
    cache: Path | None,
    target: str,
    threads: int | None,
    limit_s: float,
    workspace_mib: int | None,
    trust: tuple[Path, ...] | None,
    shown: bool,
    clear: bool,
    as_json: bool,
) -> None:
    """Compile BUNDLE for this device and keep the result where `edgebm.load` finds it.

    Run it once when the device is set up and after each update of the runtime, as the user that
    runs the program. It proves the bundle as loading does, first in a process of its own. What
    would open no faster is not kept. Ctrl-C ends a build and leaves nothing behind.
    """
    if bundle is None and not (shown or clear):
        raise UsageError("BUNDLE is missing", hint="see 'edgebm build --help'")
    rules = wanted_cache(cache if cache is not None else True)
    assert rules is not None
    rules = replace(rules, create=bundle is not None)
    result: dict[str, Any] = {"folder": str(rules.path)}
    with open_store(rules) as store:
        if clear:
            result["deleted"] = delete_all(store)
    if bundle is not None:
        size = None if workspace_mib is None else workspace_mib << 20
        with shown_on_stderr() as progress:
            how = BuildRules("wait", limit_s, size, progress)
            result |= build(bundle, target, threads, rules, trust, how)
    with open_store(rules) as store:
        result["entries"] = contents(store)
    emit_json(result) if as_json else click.echo(_text(result, listed=shown or clear))


def build(
    bundle: Path,
    target: str,
    threads: int | None,
    rules: CacheFolder,
    trust: tuple[Path, ...] | None = None,
    how: WantedBuild = "wait",
) -> dict[str, Any]:
    """Load the bundle as a program does; what became of its compiled model.

    A runtime that ends its process while it compiles does not end this one.

    Raises:
        ResourceError: it is proved, and cannot be stored.
    """
    with load(bundle, target, threads, trust, cache=rules, trial_s=TRIAL_S, build=how) as session:
        report = session.report()
    cache = report["cache"]
    if cache["state"] in {"failed", "miss"}:
        raise ResourceError(
            f"{bundle} runs here, but what was compiled is not stored: {cache['why']}",
            hint="free some space, or choose another folder with --cache",
        )
    names = ("name", "digest", "target", "runtime", "runtime_version", "precision", "threads")
    return {**{name: report[name] for name in names}, "cache": cache}


def contents(store: Store) -> list[dict[str, Any]]:
    """What is in the cache, by what was used last."""
    return [_entry(store, entry.name, entry.size) for entry in store.folder.entries()]


def delete_all(store: Store) -> int:
    """Delete every entry; how many there were."""
    names = [entry.name for entry in store.folder.entries()]
    for name in names:
        store.folder.remove(name)
    store.folder.sweep()
    return len(names)


def _entry(store: Store, name: str, size: int) -> dict[str, Any]:
    try:
        head = store.head(name)
    except (OSError, EngineStale) as why:
        return {"entry": name, "label": "", "size_bytes": size, "why": str(why)}
    kept = bool(head.sizes)
    return {
        "entry": name,
        "label": head.header["label"],
        "size_bytes": size,
        "compile_ms": head.header["compile_ms"],
        "why": "" if kept else "a note: it opens no faster than it compiles",
    }


def _text(result: dict[str, Any], *, listed: bool) -> str:
    head = {"folder": result["folder"]}
    if "deleted" in result:
        head["deleted"] = f"{result['deleted']} entries"
    if "cache" in result:
        cache = result["cache"]
        head["bundle"] = f"{result['name']} {result['digest'][:12]}"
        head["variant"] = f"{result['target']}/{result['runtime']} ({result['precision']})"
        head["state"] = _STATES[cache["state"]]
        if cache["why"]:
            head["why"] = cache["why"]
        if cache["state"] in {"hit", "stored"}:
            opened = cache.get("reopen_ms", cache["open_ms"])
            head["size"] = file_size(cache["bytes"])
            head["saves"] = f"opens in {opened:.0f} ms, compiles in {cache['compile_ms']:.0f} ms"
    rows = [
        (entry["label"] or entry["entry"], file_size(entry["size_bytes"]), entry["why"])
        for entry in result["entries"]
    ]
    if not listed:
        return facts(head)
    return facts(head) + "\n\n" + table(("entry", "size", "note"), rows)

"""Arguments of host commands: checked all at once, before anything heavy is imported."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgebm.cli.output import output_faults
from edgebm.data.callables import is_reference
from edgebm.data.model_folder import hub_hint, is_model_folder, split_part
from edgebm.errors import EdgebmError, UsageError
from edgebm.runtime.journal import Journal
from edgebm.search.journal import measurements_faults, resume_path

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
Shapes = dict[str, list[tuple[int, ...]]]


def model_name(model: str) -> str:
    """What a bundle of `model` is called: the file's stem, or the function's name."""
    if is_reference(model):
        return model.rpartition(":")[2]
    folder, part = split_part(model)
    if is_model_folder(folder):  # its name may have dots, and may be no more than "."
        return "-".join([folder.resolve().name, *([part] if part else [])])
    return Path(model).stem


def source(model: str) -> str | Path:
    """`model` as the library takes it: a reference as text, a file as a path."""
    return model if is_reference(model) else Path(model)


def check_arguments(
    model: str, out: Path | None, shape_texts: Sequence[str], options: dict[str, Any]
) -> Shapes:
    """The parsed `--shapes`, if all arguments are right; nothing heavy is imported for it.

    `out` is None where nothing is written.

    Raises:
        UsageError: lists every fault of every argument.
        RecipeError, TargetError: the recipe or one target is the only fault.
    """
    shapes, faults = parse_shapes(shape_texts)
    faults = [
        *model_faults("MODEL", model),
        *source_faults("--data", options["data"]),
        *source_faults("--eval", options["evaluation"]),
        *source_faults("--initial-state", options.get("initial_state"), folders=False),
        *_out_faults(model, out, options),
        *_keep_faults(options["keep"]),
        *_number_faults(options),
        *_gate_faults(options.get("gates", ())),
        *_budget_faults(options["budget"]),
        *_measurements_faults(model, out, options),
        *launch_faults(),
        *faults,
    ]
    refuse_faults(faults, yaml_faults(options["recipe"], options["targets"]), "compress")
    return shapes


def refuse_faults(
    faults: Sequence[str], errors: Sequence[EdgebmError], name: str, hints: Sequence[str] = ()
) -> None:
    """Raise one error for all `faults` and `errors` of the command `name`; none if there is none.

    A single error keeps its own class, and with that its exit code.
    """
    if errors and len(errors) + len(faults) == 1:
        raise errors[0]
    found = [*faults, *(line for error in errors for line in str(error).splitlines())]
    if found:
        raise usage_error(found, name, [*hints, *(error.hint for error in errors)])


def usage_error(
    faults: Sequence[str], name: str = "compress", hints: Sequence[str] = ()
) -> UsageError:
    """One error for all `faults` of the command `name`."""
    hint = "; ".join(dict.fromkeys([*hints, f"see 'edgebm {name} --help'"]))
    if len(faults) == 1:
        return UsageError(faults[0], hint=hint)
    text = "".join(f"\n  - {fault}" for fault in faults)
    return UsageError(
        f"{len(faults)} arguments are wrong:{text}",
        hint=hint,
        details={"faults": list(faults)},
    )


def parse_shapes(texts: Sequence[str]) -> tuple[Shapes, list[str]]:
    """`ids:1x64,1x128` as {"ids": [(1, 64), (1, 128)]}, and what is wrong with the rest."""
    shapes: Shapes = {}
    faults = []
    for text in texts:
        name, _, sizes = text.rpartition(":")
        try:
            parsed = [tuple(int(axis) for axis in size.split("x")) for size in sizes.split(",")]
        except ValueError:
            parsed = []
        if not name or not parsed or any(axis < 1 for size in parsed for axis in size):
            faults.append(f"--shapes {text} does not read as INPUT:1x64 or INPUT:1x64,1x128")
        else:
            shapes.setdefault(name, []).extend(parsed)
    return shapes, faults


def source_faults(option: str, text: str | None, *, folders: bool = True) -> list[str]:
    """Why the file or `file.py:function` that `text` names cannot be used."""
    if text is None:
        return []
    if is_reference(text):
        file = text.rpartition(":")[0]
        missing = file.endswith(".py") and not Path(file).is_file()
        return [f"{option} {text}: there is no file {file}"] if missing else []
    path = Path(text)
    if not path.exists():
        return [f"{option} {text}: there is no such file"]
    saved_model = (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file()
    if path.is_dir() and not folders and not saved_model:
        return [f"{option} {text} is a folder; give the model file in it"]
    return []


def model_faults(option: str, text: str) -> list[str]:
    """Why the file, folder or `file.py:function` that `text` names cannot be a model."""
    if is_model_folder(split_part(text)[0]):
        return []
    faults = source_faults(option, text, folders=False)
    hint = hub_hint(text) if faults and not Path(text).exists() else ""
    return [f"{fault}; {hint}" for fault in faults] if hint else faults


def launch_faults() -> list[str]:
    """Why a command that measures cannot run as one of many processes; empty if it is alone."""
    count = os.environ.get("WORLD_SIZE", "1")
    if "RANK" not in os.environ or count in {"", "1"}:
        return []
    return [
        f"torchrun started {count} processes of this command, which would measure against each "
        "other; start it once. 'edgebm distill' is what trains on many processes"
    ]


def _out_faults(model: str, out: Path | None, options: dict[str, Any]) -> list[str]:
    if out is None:
        return []
    inputs = (model, options["data"], options["evaluation"], options["recipe"])
    force = options["force"] or _is_unfinished(out, options["measurements"])
    return output_faults(out, option="--out", force=force, inputs=inputs)


def _keep_faults(keep: Path | None) -> list[str]:
    if keep is None or keep.is_dir():
        return []
    if keep.exists():
        return [f"--keep {keep} is a file; give a folder"]
    return [] if keep.parent.is_dir() else [f"--keep {keep}: {keep.parent} does not exist"]


def _number_faults(options: dict[str, Any]) -> list[str]:
    def positive(value: float) -> bool:
        return value > 0

    def not_negative(value: float) -> bool:
        return value >= 0

    rules: dict[str, tuple[Callable[[float], bool], str]] = {
        "max_drop": (not_negative, "0 or more"),
        "max_latency_ms": (positive, "more than 0"),
        "max_size_mb": (positive, "more than 0"),
        "subset_size": (positive, "1 or more"),
        "threads": (positive, "1 or more"),
        "seed": (not_negative, "0 or more"),
        "measure_seconds": (positive, "more than 0"),
    }
    faults = []
    for key, (rule, words) in rules.items():
        value = options[key]
        if value is not None and not rule(value):
            faults.append(f"--{key.replace('_', '-')} {value} must be {words}")
    return faults


def duration_s(text: str) -> float:
    """`90s`, `20m`, `1.5h` or `2d` in seconds.

    Raises:
        ValueError: it reads as none of these, or is 0.
    """
    number, unit = text[:-1], text[-1:]
    seconds = float(number) * _UNITS_S.get(unit, math.nan)
    if not 0 < seconds < math.inf:
        raise ValueError(f"no time above 0: {text}")
    return seconds


def _budget_faults(text: str | None) -> list[str]:
    if text is None:
        return []
    try:
        duration_s(text)
    except ValueError:
        return [f"--budget {text} does not read as a time above 0, such as 90s, 20m or 1h"]
    return []


def _gate_faults(texts: Sequence[str]) -> list[str]:
    if not texts:
        return []
    from edgebm.search.gate import parse_gates

    try:
        parse_gates(texts)
    except UsageError as error:
        return [f"--{fault}" for fault in error.details["faults"]]
    return []


def _measurements_faults(model: str, out: Path | None, options: dict[str, Any]) -> list[str]:
    if options["measurements"] is None:
        return []
    read = (model, options["data"], options["evaluation"], options["recipe"])
    inputs = read if out is None else (*read, out)
    faults = measurements_faults(options["measurements"], inputs)
    return [f"--measurements: {fault}" for fault in faults]


def _is_unfinished(out: Path, measurements: Path | None) -> bool:
    """Whether `out` is what a run wrote that did not complete, and that can go on."""
    try:
        return out.is_file() and Journal(measurements or resume_path(out)).wrote(out)
    except (OSError, UsageError):
        return False  # what is wrong with the paths is told of each of them


def yaml_faults(recipe: str | None, targets: Sequence[str]) -> list[EdgebmError]:
    """What is wrong with the recipe and the targets, by name or file; empty if nothing is."""
    from edgebm.recipe import load_recipe
    from edgebm.target import load_target

    errors = []
    loaders: list[tuple[Callable[[str], object], str]] = []
    loaders += [] if recipe is None else [(load_recipe, recipe)]
    loaders += [(load_target, target) for target in targets]
    for load, name in loaders:
        try:
            load(name)
        except EdgebmError as error:  # noqa: PERF203 - all faults at once
            errors.append(error)
    return errors

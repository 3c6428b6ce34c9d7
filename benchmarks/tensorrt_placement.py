r"""Where Q/DQ go for TensorRT: edgebm's placement against NVIDIA Model Optimizer's.

    python benchmarks/tensorrt_placement.py ours.onnx theirs.onnx
    python benchmarks/tensorrt_placement.py --all /tmp/modelopt/bin/python > tables.md

The first compares any two files of one model. The second makes both files of every model in
`tensorrt_nets.py` in benchmarks/out/placement. It needs a Python with Model Optimizer, in an
environment of its own (other versions of onnx and onnxruntime), 1.3 GB, no GPU:

    python3.11 -m venv /tmp/modelopt
    /tmp/modelopt/bin/pip install --no-deps nvidia-modelopt==0.47.0
    /tmp/modelopt/bin/pip install 'onnx~=1.21.0' 'onnxruntime~=1.24.2' 'onnx-graphsurgeon>=0.6.1' \
        'polygraphy>=0.53.4' 'onnxslim>=0.1.76' 'onnxconverter-common~=1.16.0' onnxscript lief \
        ml_dtypes numpy scipy tqdm packaging setuptools PyYAML nvidia-ml-py
    /tmp/modelopt/bin/pip install torch      # 2.13.0, the build for CPUs

Its extra [onnx] asks for more, which nothing imports on the way to int8: cupy-cuda12x,
onnxruntime-gpu (the build for CPUs does) and cppimport, and of its base ninja, omegaconf, pulp,
pydantic, regex, rich and safetensors. It logs an error that there is no NVML, and goes on.
"""

from __future__ import annotations

import argparse
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from placement_ours import write_ours
from placement_reading import File, Pair, Site, float_types, name_of, open_file, pairs
from placement_reasons import reason_of, why_other_scale
from tensorrt_nets import FAMILIES, write

import edgebm
from edgebm.backends.tensorrt.reading import constant_behind
from edgebm.ir.edit import const, input_at

OUT = Path(__file__).parent / "out" / "placement"
QUANTIZE = Path(__file__).with_name("modelopt_quantize.py")
VERSIONS = ("10.3", "11.4")
PRECISIONS = ("fp16", "fp32")


def main() -> None:
    """Compare two files, or make and compare all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", type=Path, metavar="ours.onnx theirs.onnx")
    parser.add_argument("--all", type=Path, metavar="PYTHON", help="with Model Optimizer")
    chosen = parser.parse_args()
    if chosen.all:
        compare_all(chosen.all)
    elif len(chosen.files) == 2:
        print(comparison(*chosen.files))
    else:
        parser.error("give two files, or --all")


def compare_all(python: Path) -> None:
    """Make the files of every family, and print their tables."""
    OUT.mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        model, samples = write(family, OUT)
        ours, seen = write_ours(model, samples, OUT)
        theirs = {}
        for precision in PRECISIONS:
            theirs[precision] = OUT / f"{family}.theirs.{precision}.onnx"
            command = [*map(str, (python, QUANTIZE, model, seen, theirs[precision])), precision]
            subprocess.run(command, check=True, capture_output=True)
        print(f"\n## {family}\n")
        files = {f"edgebm, {kind}": path for kind, path in ours.items()}
        files |= {f"Model Optimizer, {precision}": path for precision, path in theirs.items()}
        print(lint_table(files))
        for kind, path in ours.items():
            print(f"\n### {family}: edgebm {kind} against Model Optimizer fp16\n")
            print(comparison(path, theirs["fp16"]))


def comparison(ours: Path, theirs: Path) -> str:
    """The tables of one model: files, agreement by operator, scales, every difference."""
    left, right = open_file(ours), open_file(theirs)
    found, mine, others = pairs(left, right)
    alone = [f"Only in ours: {_listed(mine)}."] * bool(mine)
    alone += [f"Only in theirs: {_listed(others)}."] * bool(others)
    parts = [file_table(left, right), agreement_table(found), scale_table(found), *alone]
    return "\n\n".join([*parts, difference_table(found), far_table(found)])


def _listed(sites: Iterable[Site]) -> str:
    return ", ".join(f"{site.node.op_type} `{name_of(site)}`" for site in sites)


def lint_table(files: dict[str, Path]) -> str:
    """Findings of the linter in each file, by rule, for the oldest and the newest version."""
    rows = []
    for who, path in files.items():
        for version in VERSIONS:
            lint = edgebm.lint(str(path), f"tensorrt:{version}")
            rules = Counter(f.rule.code for f in lint.findings)
            text = ", ".join(f"{code} x {n}" for code, n in sorted(rules.items())) or "none"
            rows.append((who, version, str(len(lint.errors)), text))
    return _table(("file", "TensorRT", "errors", "findings"), rows)


def file_table(ours: File, theirs: File) -> str:
    """What the two files are made of."""
    rows = [(fact, a, b) for (fact, a), (_, b) in zip(_facts(ours), _facts(theirs), strict=True)]
    return _table(("", "edgebm", "Model Optimizer"), rows)


def _facts(file: File) -> Iterator[tuple[str, str]]:
    reading = file.reading
    quantizers, dequantizers = list(reading.of("QuantizeLinear")), reading.of("DequantizeLinear")
    weights = [d for d in dequantizers if constant_behind(input_at(d, 0)) is not None]
    stored = sum(const(input_at(d, 0)) is not None for d in weights)
    yield "opset", str(reading.opset)
    yield "bytes", f"{file.path.stat().st_size:,}"
    activations = [q for q in quantizers if constant_behind(input_at(q, 0)) is None]
    yield "quantized activations", str(len(activations))
    yield "weights stored as int8", f"{stored} of {len(weights)}"
    yield "types of scales", _counted(q.inputs[1].dtype.name for q in activations)  # type: ignore[union-attr]
    yield "nodes by floating type", ", ".join(f"{k} {n}" for k, n in float_types(file).items())
    faces = [*reading.graph.inputs, *reading.graph.outputs]
    yield "inputs and outputs", ", ".join(v.dtype.name for v in faces if v.dtype)


def _counted(kinds: Iterable[str]) -> str:
    return ", ".join(f"{kind} {n}" for kind, n in Counter(kinds).items())


def agreement_table(found: Sequence[Pair]) -> str:
    """How often the two agree, by operator."""
    columns = ("both int8", "both float", "only ours int8", "only theirs int8", "other axis")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in found:
        mine, other = pair.mine.scale is not None, pair.other.scale is not None
        kind = {(True, False): "only ours int8", (False, True): "only theirs int8"}
        agreed = "both int8" if mine else "both float"
        which = kind.get((mine, other), agreed if pair.agrees else "other axis")
        counts[pair.ours.node.op_type][which] += 1
    rows = [(op, *(str(counts[op][c] or "") for c in columns)) for op in sorted(counts)]
    total = Counter[str]()
    for each in counts.values():
        total += each
    rows.append(("**all**", *(str(total[c] or "") for c in columns)))
    return _table(("inputs of", *columns), rows)


def scale_table(found: Sequence[Pair]) -> str:
    """How far scales are apart where both are int8, in percent of theirs."""
    rows = []
    for what, is_weight in (("activations", False), ("weights, by channel", True)):
        both = [p for p in found if p.mine.scale is not None and p.other.scale is not None]
        ratios = [
            p.mine.scale / p.other.scale
            for p in both
            if p.mine.is_weight is is_weight and p.agrees
            and p.mine.scale is not None and p.other.scale is not None
        ]  # fmt: skip
        if ratios:
            off = (np.concatenate(ratios) - 1) * 100
            near = f"{np.mean(np.abs(off) < 1):.0%}"
            rows.append((what, str(off.size), near, *(f"{v:+.1f} %" for v in _spread(off))))
    return _table(("scales of", "count", "within 1 %", "smallest", "median", "largest"), rows)


def far_table(found: Sequence[Pair]) -> str:
    """Every value whose scales are more than 1 % apart, and why."""
    rows = []
    for pair in found:
        mine, other = pair.mine.scale, pair.other.scale
        if mine is None or other is None or mine.shape != other.shape:
            continue
        off = (mine / other - 1) * 100
        worst = float(off[np.argmax(np.abs(off))])
        if abs(worst) > 1:
            where = f"`{name_of(pair.theirs)}`:{pair.other.index}"
            rows.append((pair.ours.node.op_type, where, f"{worst:+.1f} %", why_other_scale(pair)))
    head = ("operator", "node:input", "our scale", "why")
    return _table(head, rows) if rows else "No scale is more than 1 % apart."


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    return float(values.min()), float(np.median(values)), float(values.max())


def difference_table(found: Sequence[Pair]) -> str:
    """Every input that one of the two quantizes and the other does not, and why."""
    groups: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for pair in found:
        if not pair.agrees:
            key = (pair.ours.node.op_type, pair.mine.text, pair.other.text, reason_of(pair))
            groups[key].append(f"`{name_of(pair.theirs)}`:{pair.other.index}")
    rows = [(op, ", ".join(names), a, b, why) for (op, a, b, why), names in groups.items()]
    if not rows:
        return "No difference."
    return _table(("operator", "node:input", "edgebm", "Model Optimizer", "why"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()

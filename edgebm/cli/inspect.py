"""`edgebm inspect`: what is in a bundle, without running it; or what is wrong with a graph."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from edgebm.cli.output import emit_json, json_option
from edgebm.cli.text import facts, file_size, signature, table
from edgebm.errors import UsageError
from edgebm.runtime.bundle import Bundle, read_bundle
from edgebm.runtime.engines import CPU_RUNTIMES
from edgebm.runtime.proof import Proof
from edgebm.runtime.select import missing_features
from edgebm.spec import Manifest, TensorSpec, Variant

EXAMPLE = """\
\b
Examples:
  edgebm inspect model.edgebm
  edgebm inspect model.edgebm --members
  edgebm inspect model.edgebm --json
  edgebm inspect model.onnx --lint tensorrt:10.3
"""


@click.command(epilog=EXAMPLE)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--members", is_flag=True, help="List every file in the bundle, too.")
@click.option(
    "--lint",
    metavar="RUNTIME[:VERSION]",
    help="Read BUNDLE as an ONNX file, and hold it against the rules of 'tensorrt' (10.3, the "
    "strictest) or 'tensorrt:VERSION'. Exits with 3 where it would be refused.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context, bundle: Path, members: bool, lint: str | None, as_json: bool
) -> None:
    """Show inputs, outputs, variants and origin of BUNDLE. No runtime is needed."""
    if lint is not None:
        if members:
            raise UsageError(
                "--members lists the files of a bundle, and --lint reads an ONNX file",
                hint="give one of them",
            )
        # By name, as commands are: graphs are read by the host half, bundles are not.
        ctx.exit(import_module("edgebm.cli.lint").show(bundle, lint, as_json=as_json))
    opened = read_bundle(bundle)
    if as_json:
        facts_only: dict[str, Any] = {
            "path": opened.path,
            "size_bytes": opened.size,
            "digest": opened.digest,
        }
        facts_only |= Proof(opened).facts()
        emit_json({**facts_only, "manifest": opened.manifest.to_dict()})
        return
    click.echo(_text(opened))
    if members:
        rows = [(name, len(data)) for name, data in opened.members.items()]
        click.echo("\n" + table(("member", "bytes"), rows))


def _text(bundle: Bundle) -> str:
    manifest = bundle.manifest
    head = {
        "name": manifest.name,
        "size": file_size(bundle.size),
        "digest": bundle.digest,
        "signature": signature(Proof(bundle).facts()),
        "made by": f"edgebm {manifest.edgebm_version}",
        "constraints": "met" if manifest.constraints_met else "NOT met",
        "golden samples": manifest.golden,
    }
    head |= {key: value for key, value in manifest.provenance.items() if _short(value)}
    parts = [facts(head), _face("input", manifest.inputs), _face("output", manifest.outputs)]
    if limits := _limits(manifest):
        parts.append(table(("of", "limit"), limits))
    if manifest.states:
        parts.append(table(("state", "from", "shape", "initial"), _states(bundle)))
    variants = [_variant(bundle, variant) for variant in manifest.variants]
    head_row = ("variant", "precision", "threads", "size", "layers", "made with", "runs here")
    parts.append(table(head_row, variants))
    if manifest.candidates:
        rows = [(each.id, file_size(_size(bundle, each))) for each in manifest.candidates]
        parts.append(table(("candidate, runs if it is named", "size"), rows))
    return "\n\n".join(parts)


def _short(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and len(str(value)) <= 80


def _face(kind: str, specs: Sequence[TensorSpec]) -> str:
    rows = [(s.name, s.dtype, _shape(s), s.layout) for s in specs]
    return table((kind, "dtype", "shape", "layout"), rows)


def _shape(spec: TensorSpec) -> str:
    return "x".join(map(str, spec.shape)) or "scalar"


def _limits(manifest: Manifest) -> list[tuple[str, str]]:
    rows = [(f"axis {name}", f"{low} to {high}") for name, (low, high) in manifest.axes.items()]
    rows += [
        (f"indices {name}", f"0 to {limit - 1}") for name, limit in manifest.index_limits.items()
    ]
    return rows


def _states(bundle: Bundle) -> list[tuple[str, str, str, str]]:
    specs = {spec.name: spec for spec in bundle.manifest.inputs}
    rows = []
    for state in bundle.manifest.states:
        initial = "zeros"
        if (x := bundle.initial.get(state.input)) is not None:
            values = f", {float(x.min()):.4g} to {float(x.max()):.4g}" if x.size else ""
            initial = f"{state.initial} {'x'.join(map(str, x.shape))}{values}"
        rows.append((state.input, state.output, _shape(specs[state.input]), initial))
    return rows


def _variant(bundle: Bundle, variant: Variant) -> tuple[object, ...]:
    missing = missing_features(variant)
    cpu = variant.runtime in CPU_RUNTIMES
    runs = "yes" if cpu else "with an NVIDIA GPU, see 'edgebm doctor'"
    return (
        f"{variant.target}/{variant.runtime}",
        variant.precision,
        variant.config.threads if cpu else "-",
        file_size(_size(bundle, variant)),
        ", ".join(f"{count} {name}" for name, count in variant.layers.items()) or "-",
        variant.runtime_version or "-",
        f"no: needs {', '.join(missing)}" if missing else runs,
    )


def _size(bundle: Bundle, variant: Variant) -> int:
    return sum(len(bundle.members[name]) for name in variant.files.values())

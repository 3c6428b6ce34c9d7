"""`edgebm verify`: is the file whole, and does it give the right answers here?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import click

from edgebm.cli.options import trust_option
from edgebm.cli.output import emit_json, json_option
from edgebm.cli.text import facts, file_size, signature, table
from edgebm.errors import BackendUnavailable, BundleIncompatible, EdgebmError, EngineStale
from edgebm.runtime.bundle import Bundle
from edgebm.runtime.cache_place import wanted_cache
from edgebm.runtime.engines import BUILT_APART
from edgebm.runtime.proof import Proof, read_trusted, wanted_trust
from edgebm.runtime.select import AUTO, missing_features, named_variants
from edgebm.runtime.session import open_variant
from edgebm.runtime.start import try_variant
from edgebm.runtime.trial import TRIAL_S
from edgebm.spec import Variant

EXAMPLE = """\
\b
Examples:
  edgebm verify model.edgebm
  edgebm verify model.edgebm --trust fleet.pub
  edgebm verify model.edgebm --target openvino --json
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one variant: "passed", "skipped" (it cannot run here) or "failed"."""

    variant: str
    precision: str
    status: str
    why: str
    errors: dict[str, float]
    exit_code: int


@click.command(epilog=EXAMPLE)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--target", default=AUTO, help="Only this target or runtime. Default: all of them.")
@trust_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    target: str,
    trust: tuple[Path, ...] | None,
    as_json: bool,
) -> None:
    """Check the structure and every hash of BUNDLE, then re-run its golden samples here.

    Exits with 0 only if at least one variant passed and none failed.
    """
    proof = read_trusted(bundle, wanted_trust(trust))
    opened = proof.bundle
    verdicts = [judge(opened, variant) for variant in _meant(opened, target)]
    exit_code = overall(verdicts)
    if as_json:
        emit_json(
            {
                "name": opened.manifest.name,
                "digest": opened.digest,
                "size_bytes": opened.size,
                "golden": opened.manifest.golden,
                **proof.facts(),
                "passed": exit_code == 0,
                "variants": [asdict(verdict) for verdict in verdicts],
            }
        )
    else:
        click.echo(_text(proof, verdicts))
        if exit_code:
            _explain(verdicts)
    ctx.exit(exit_code)


def _meant(bundle: Bundle, target: str) -> list[Variant]:
    """The variants that `target` names, and all candidates where it names none."""
    named = named_variants(bundle.manifest, target)
    chosen = {(variant.config.threads, *variant.files.values()) for variant in named}
    others = [] if target != AUTO else bundle.manifest.candidates
    return [*named, *(c for c in others if (c.config.threads, *c.files.values()) not in chosen)]


def judge(bundle: Bundle, variant: Variant) -> Verdict:
    """Run a variant in a process of its own, load it as a program would; what happened."""
    name = f"{variant.target}/{variant.runtime}"
    if variant not in bundle.manifest.variants:
        name = variant.id
    if missing := missing_features(variant):
        why = f"this processor lacks {', '.join(missing)}"
        return Verdict(name, variant.precision, "skipped", why, {}, BundleIncompatible.exit_code)
    try:
        cache = None
        if variant.runtime in BUILT_APART:
            cache = wanted_cache(None)  # it is proved as 'edgebm build' has left it
        else:
            try_variant(bundle, variant, TRIAL_S)
        with open_variant(bundle, variant, cache=cache) as session:
            report = session.report()
    except EdgebmError as error:
        is_missing = isinstance(error, (BackendUnavailable, EngineStale))
        status = "skipped" if is_missing else "failed"
        errors = error.details.get("errors", {})
        return Verdict(name, variant.precision, status, str(error), errors, error.exit_code)
    worst = max(report["self_test"].values(), default=0.0)
    why = f"worst relative error {worst:.2g} over {report['golden']} golden sample(s)"
    if report["stream_test"]:
        streamed = max(report["stream_test"].values())
        why += f", {streamed:.2g} as one stream"
    if not report["golden"]:
        why = "loads; there are no golden samples to compare"
    return Verdict(name, variant.precision, "passed", why, report["self_test"], 0)


def overall(verdicts: list[Verdict]) -> int:
    """Exit code: the worst failure, or why nothing could be run, or 0."""
    failed = [verdict.exit_code for verdict in verdicts if verdict.status == "failed"]
    if failed:
        return min(failed)
    if any(verdict.status == "passed" for verdict in verdicts):
        return 0
    return max(verdict.exit_code for verdict in verdicts)


def _explain(verdicts: list[Verdict]) -> None:
    failed = [verdict.variant for verdict in verdicts if verdict.status == "failed"]
    if failed:
        click.echo(f"error: failed here: {', '.join(failed)}", err=True)
        click.echo("hint:  compress again for this device; do not use the bundle here", err=True)
    else:
        click.echo("error: no variant can run here, so nothing was proved", err=True)
        click.echo("hint:  verify it on the device that it was made for", err=True)


def _text(proof: Proof, verdicts: list[Verdict]) -> str:
    bundle = proof.bundle
    head = {
        "name": bundle.manifest.name,
        "size": file_size(bundle.size),
        "digest": bundle.digest,
        "members": f"{len(bundle.members)}, every hash is right",
        "signature": signature(proof.facts()),
    }
    rows = [(v.variant, v.precision, v.status, v.why) for v in verdicts]
    return facts(head) + "\n\n" + table(("variant", "precision", "result", "why"), rows)

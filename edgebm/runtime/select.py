"""Which variant of a bundle runs here: asked for by name, allowed by the processor."""

from __future__ import annotations

from collections.abc import Sequence

from edgebm.errors import BundleIncompatible, UsageError
from edgebm.runtime.cpu import arch, cpu_features, cpu_name
from edgebm.spec import Manifest, Variant

AUTO = "auto"


def wanted_targets(target: str | Sequence[str]) -> tuple[str, ...]:
    """The names to try, in order; only a list allows a fallback.

    Raises:
        UsageError: an empty name or list, or something that is no name.
    """
    names = tuple(target) if isinstance(target, (list, tuple)) else (target,)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UsageError(
            f"target {target!r} is not a name or a list of names",
            hint="target='auto', a target, a runtime, or a list of them",
        )
    return names


def missing_features(variant: Variant) -> list[str]:
    """CPU features the variant needs and this processor lacks."""
    return sorted(set(variant.requires) - cpu_features())


def named_variants(manifest: Manifest, name: str) -> list[Variant]:
    """The variants that `name` means, in the order of the manifest.

    `name` is "auto" (all of them), a target, a runtime, or "target/runtime". A candidate that
    was not chosen is meant by its whole name only (`Variant.id`).

    Raises:
        BundleIncompatible: there is none.
    """
    named = [
        variant
        for variant in manifest.variants
        if name in {AUTO, variant.target, variant.runtime, f"{variant.target}/{variant.runtime}"}
    ]
    named = named or [each for each in manifest.candidates if each.id == name]
    if not named:
        raise BundleIncompatible(
            f"the bundle has no variant for {name!r}, it has {describe(manifest)}",
            hint=f"compress with --target {name}, or ask for one of these",
        )
    return named


def choose_variant(manifest: Manifest, name: str) -> Variant:
    """The first variant that `name` means and this processor can run.

    Raises:
        BundleIncompatible: the bundle has none by that name, or each needs what is missing here.
    """
    named = named_variants(manifest, name)
    for variant in named:
        if not missing_features(variant):
            return variant
    reasons = [
        f"{variant.target}/{variant.runtime} needs {', '.join(missing_features(variant))}"
        for variant in named
    ]
    raise BundleIncompatible(
        f"no variant runs on this processor ({cpu_name()}, {arch()}): {'; '.join(reasons)}",
        hint="compress for this processor, or for a target that asks for less",
        details={"missing": {f"{v.target}/{v.runtime}": missing_features(v) for v in named}},
    )


def describe(manifest: Manifest) -> str:
    """The variants of a bundle in one line."""
    return ", ".join(f"{v.target}/{v.runtime} ({v.precision})" for v in manifest.variants)

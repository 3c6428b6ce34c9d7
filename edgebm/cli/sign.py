"""`edgebm sign`: say who answers for a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from edgebm.cli.options import out_option
from edgebm.cli.output import emit_json, json_option
from edgebm.cli.passphrase import known_passphrase, passphrase_option
from edgebm.cli.text import facts
from edgebm.runtime.signature import MAX_RELEASE
from edgebm.verbs.sign import sign

EXAMPLE = """\
\b
Examples:
  edgebm sign model.edgebm --key fleet.key --release 3
  edgebm sign model.edgebm --key ci.key --expires 2027-12-31 -o signed.edgebm
  edgebm verify model.edgebm --trust fleet.pub
"""


@click.command(epilog=EXAMPLE)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The private key, as 'edgebm keygen' or openssl writes it.",
)
@click.option(
    "--release",
    type=click.IntRange(0, MAX_RELEASE),
    metavar="N",
    default=0,
    show_default=True,
    help="Counts up from version to version: a device can refuse a lower one than it had.",
)
@click.option(
    "--expires",
    metavar="YYYY-MM-DD",
    help="The last day, in UTC, on which the signature counts. Default: for ever.",
)
@passphrase_option
@out_option("Where to write. Default: BUNDLE itself, in one step.")
@click.option("--force", is_flag=True, help="Replace the file of --out if it is there.")
@json_option
def command(
    bundle: Path,
    *,
    key: Path,
    release: int,
    expires: str | None,
    passphrase_file: Path | None,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Sign BUNDLE, so that devices that trust the key take it.

    Another key adds a signature, the same key replaces its own. Nothing else in it changes.
    """
    made = sign(
        bundle,
        key,
        release=release,
        expires=expires,
        out=out,
        passphrase=lambda: known_passphrase(passphrase_file),
        force=force,
    )
    if as_json:
        emit_json(made)
        return
    shown = {**made, "signed_by": ", ".join(made["signed_by"])}
    click.echo(facts({**shown, "expires": made["expires"] or "never"}))

"""`edgebm keygen`: a key pair for signing bundles."""

from __future__ import annotations

from pathlib import Path

import click

from edgebm.cli.output import emit_json, json_option
from edgebm.cli.passphrase import new_passphrase, passphrase_option
from edgebm.cli.text import facts
from edgebm.verbs.sign import keygen

EXAMPLE = """\
\b
Examples:
  edgebm keygen fleet
  edgebm keygen fleet --encrypt
  edgebm keygen ci --passphrase-file secret.txt --json
"""


@click.command(epilog=EXAMPLE)
@click.argument("name", type=click.Path(path_type=Path))
@click.option("--encrypt", is_flag=True, help="Encrypt the private key with a passphrase.")
@passphrase_option
@json_option
def command(name: Path, *, encrypt: bool, passphrase_file: Path | None, as_json: bool) -> None:
    """Make a key pair for 'edgebm sign': NAME.key signs and stays secret, devices trust NAME.pub.

    With a passphrase that is given in a file or in the environment it is encrypted, too. Files
    that are there are never replaced.
    """
    made = keygen(name, passphrase=new_passphrase(passphrase_file, encrypt=encrypt))
    emit_json(made) if as_json else click.echo(facts(made))

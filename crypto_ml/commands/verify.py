"""`crypto-ml verify`: the whole record, held against the chain of evidence."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from crypto_ml.commands.printing import print_json, say
from crypto_ml.commands.progress import bar
from crypto_ml.digest import sha256_of
from crypto_ml.errors import Refused
from crypto_ml.times import read_time

if TYPE_CHECKING:
    from crypto_ml.audit.verified import Verified
    from crypto_ml.storage.objects import ObjectStore

MOST_SHOWN: Final = 100


class EvidenceWrong(Refused):
    """Evidence that is not as it was."""


@click.command("verify")
@click.option("--since", metavar="LINK|DATE", help="Only what came with this link, or since this time (UTC).")
@click.option("--full", is_flag=True, help="Read everything again, also what was found right before.")
@click.option("--extend", "take_in", is_flag=True, help="First take in what came since the last link.")
@click.option("--witness", is_flag=True, help="Also ask the witnesses of CRYPTO_ML_WITNESSES.")
@click.option("--restored", is_flag=True, help="The store was put back from a copy: S3's times are those of the copy.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(since: str | None, *, full: bool, take_in: bool, witness: bool, restored: bool, as_json: bool) -> None:
    """Hold everything that is stored as evidence against the chain of evidence, link by link.

    Every link, every record it names, every object a record vouches for: there, unchanged, written when it says, and
    nothing beside them. Prints what is wrong and since when, and ends with exit code 1 where anything is.

    What was found right before is not read again unless S3 says that it was written since; this machine remembers it in
    its cache.
    """
    from crypto_ml.audit.tolerance import RESTORED, Tolerance
    from crypto_ml.audit.verified import State, verdict
    from crypto_ml.audit.verify import verify
    from crypto_ml.audit.witnessed import compared
    from crypto_ml.deployment import Deployment
    from crypto_ml.settings import Settings
    from crypto_ml.stages.evidence_chain import extend
    from crypto_ml.stages.witnesses import witnesses

    settings = Settings.from_environment()
    store = Deployment(settings, probe=take_in).store
    remembered = _remembered(store)
    state = State.read(remembered.read_bytes()) if remembered.exists() and not (full or since) else None
    with bar() as tell:
        if take_in:
            extend(store, datetime.now(UTC), everything=True, tell=tell)
        found = verify(
            store,
            state=state,
            since=_since(since),
            tolerance=RESTORED if restored else Tolerance(longest_run=timedelta(seconds=settings.max_run_seconds)),
            tell=tell,
        )
    if witness:
        if not witnesses(settings, store):
            raise Refused("no witness is set: name one in CRYPTO_ML_WITNESSES")
        found = compared(found, store, settings)
    if found.state:
        _remember(found.state.rendered(), remembered)
    if as_json:
        print_json(found.document())
    else:
        _print(found)
    if not found.whole:
        raise EvidenceWrong(verdict(found).explanation)


def _print(found: "Verified") -> None:
    from crypto_ml.audit.verified import counted

    for one in found.findings[:MOST_SHOWN]:
        say(str(one))
    if len(found.findings) > MOST_SHOWN:
        say(f"and {len(found.findings) - MOST_SHOWN:,} more (--json lists all)")
    for note in found.notes:
        say(f"note: {note}", err=True)
    read = f"{found.records:,} of them and {found.objects:,} objects were read now, {found.bytes_read / 1e6:,.1f} MB"
    say(f"{found.known:,} records in {counted(found.links, 'link')} since {found.began}; {read}", err=True)
    if found.waiting:
        say(f"{found.waiting:,} records came since, and are in no link yet", err=True)
    if found.head:
        say(f"head: link {found.head.number} of {found.head.at}, sha256 {found.head.sha256}", err=True)
    if found.whole:
        say("WHOLE")


def _since(text: str | None) -> int | datetime | None:
    if text is None:
        return None
    return int(text) if text.isdecimal() and len(text) < 9 else read_time(text)


def _remembered(store: "ObjectStore") -> Path:
    """Where this machine remembers what it verified of a store; deleting it costs time, and nothing else."""
    name = sha256_of(f"{store.client.meta.endpoint_url} {store.uri('')}".encode())[:16]
    return Path("~/.cache/crypto_ml").expanduser() / f"verified-{name}.json"


def _remember(content: bytes, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        say(f"note: this machine cannot remember what was verified ({error})", err=True)


COMMANDS: Final = (command,)

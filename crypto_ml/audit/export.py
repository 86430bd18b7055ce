"""One answer's evidence as a folder that anybody can check without this program, its store, or a network.

What belongs here: which stored objects a folder has, and the rows that the answer was made from. What checks it stands
in `offline`, is copied into the folder, and shares no code with what made the answer.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final, Self

import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.audit import offline
from crypto_ml.audit.evidence import Evidence
from crypto_ml.audit.exported_readme import readme
from crypto_ml.audit.forecast_evidence import ForecastEvidence
from crypto_ml.audit.offline.check import state_columns
from crypto_ml.audit.references import Reference, UnknownAnswer
from crypto_ml.digest import sha256_of_file
from crypto_ml.errors import CryptoMLError, Refused
from crypto_ml.forecasting.bundle import MANIFEST, NETWORK, RULE, SCALER, TRAINING_MANIFEST, ModelBundle
from crypto_ml.forecasting.features import FloatArray
from crypto_ml.forecasting.fingerprint import hashed_states
from crypto_ml.forecasting.folded import FoldedSeries
from crypto_ml.forecasting.scoring import score_tables
from crypto_ml.forecasting.sorting import RowSorter
from crypto_ml.ledger.chain import EvidenceChain, Stored
from crypto_ml.ledger.formats import receipt_v1
from crypto_ml.ledger.formats.forecast_v1 import ForecastReceipt
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.formats.witnessed_v1 import WitnessedHead
from crypto_ml.ledger.layout import ANSWERS, answered_key, bundle_prefix, forecast_receipt_key
from crypto_ml.ledger.requests import is_request, pack_key
from crypto_ml.ledger.software import software
from crypto_ml.settings import Settings
from crypto_ml.stages.delivery_scoring import add_earlier_rows, score_delivery
from crypto_ml.stages.evidence_chain import LATE
from crypto_ml.stages.forecast_publication import write_files
from crypto_ml.stages.next_opens import forecast, last_days_of, newest_of, next_opens
from crypto_ml.stages.witnesses import TimestampWitness, Witness, witnesses
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore, StoredObject

FORMAT: Final = 1
SCRIPTS: Final = ("check.py", "compute.py")
OF_A_MODEL: Final = (MANIFEST, NETWORK, SCALER, RULE, TRAINING_MANIFEST, "metrics.json", "MODEL_CARD.md")
"""What of a bundle is exported: what serves, and how it came about; not its pictures, nor the network to train on."""

ENDINGS: Final = {"accepted": "parquet", "refused": "parquet", "report": "json"}
"""Of files of the folder, by the part that an object has in an answer; evidence is JSON, and what is published CSV."""

ROW: Final = ("symbol", "date", "open", "high", "low", "close", "market", "volume", "slug", "line", "context")


class CannotExport(Refused):
    """An answer whose evidence cannot be put into a folder."""


@dataclass(frozen=True)
class Exported:
    """What was exported: the answer, how many files, the links of the chain (first and last; None where no link has the
    receipt yet), the witnesses that knew of one of them, and what there is to say."""

    answer_id: str
    directory: Path
    files: int
    links: tuple[int, int] | None
    witnessed: Sequence[str]
    notes: Sequence[str]
    scripts: Mapping[str, str]


def export(reference: Reference, store: ObjectStore, settings: Settings, directory: Path, now: datetime) -> Exported:
    """Put the evidence behind an answer into a folder, which is made, and has to be empty where it is there.

    Raises CannotExport, UnknownAnswer, and what the store raises where evidence is gone.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CannotExport(f"{directory} is there already: name a folder that is not, or an empty one")
    with TemporaryDirectory(prefix="crypto_ml-export-") as name:
        folder = _Folder(directory, store)
        try:
            if reference.is_forecast:
                anchor = _forecast(reference, folder, Path(name))
            else:
                anchor = _answer(reference, folder, Path(name))
        except ObjectMissing as missing:
            raise UnknownAnswer(f"{reference.answer_id} cannot be exported: {missing}") from missing
        links, witnessed = _chain(anchor, folder, settings)
        kind = "forecast" if reference.is_forecast else "request" if _of_request(reference) else "file"
        said = {
            "format": FORMAT,
            "kind": kind,
            "answer_id": reference.answer_id,
            "row": _row(reference),
            "deployment": store.uri(""),
            "exported_at": now.isoformat(timespec="seconds"),
            "exported_by": f"crypto_ml {software().package}",
            "objects": [{"file": file, "key": key} for key, file in sorted(folder.files.items())],
            "notes": folder.notes,
        }
        folder.write("answer.json", json.dumps(said, indent=2, ensure_ascii=False).encode() + b"\n")
        for script in SCRIPTS:
            folder.write(script, Path(offline.__file__).with_name(script).read_bytes())
        folder.write("README.md", readme(said, links, witnessed).encode())
        count = folder.seal()
    scripts = {script: sha256_of_file(directory / script) for script in SCRIPTS}
    return Exported(reference.answer_id, directory, count, links, witnessed, folder.notes, scripts)


def _of_request(reference: Reference) -> bool:
    return is_request(reference.answer_id.partition("-")[0])


def _row(reference: Reference) -> dict[str, Any] | None:
    if reference.line is not None:
        return {"line": reference.line}
    return {"symbol": reference.symbol, "date": str(reference.day)} if reference.is_row else None


@dataclass
class _Folder:
    """A folder that is being filled. files: key of a stored object → its name in the folder."""

    root: Path
    store: ObjectStore
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def take(self, key: str, name: str) -> None:
        """Take in an object as it stands. Raises ObjectMissing."""
        if key in self.files:
            return
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.store.download_whole(key, path)
        self.files[key] = name

    def seal(self) -> int:
        """Write the hash of every file; how many there are."""
        names = sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        sums = "".join(f"{sha256_of_file(self.root / name)}  {name}\n" for name in names)
        self.write("SHA256SUMS", sums.encode())
        return len(names) + 1


def _answer(reference: Reference, folder: _Folder, directory: Path) -> str:
    """The evidence behind an answer to a file or a request; the key of the object that a link names."""
    evidence = Evidence.of(reference.answer_id, folder.store, directory)
    receipt = evidence.receipt
    if receipt.recorded and receipt.recorded.get("format") == receipt_v1.FORMAT:
        raise CannotExport(
            f"answer {receipt.answer_id} is of release 0.1, whose receipts name less; `crypto-ml replay` checks it"
        )
    if evidence.is_request:
        anchor = pack_key(receipt.inputs.delivery)
        folder.take(anchor, "evidence/pack.zip")
        folder.notes.append(
            "evidence/pack.zip has every request that was answered at the same moment, of whoever asked"
        )
        folder.take(receipt.evidence["champion"].key, "evidence/champion.json")
    else:
        anchor = receipt.key
        folder.take(anchor, "evidence/receipts.json" if receipt.stands_in else "evidence/receipt.json")
        for part, vouched in receipt.evidence.items():
            if part != "bundle":
                folder.take(vouched.key, f"evidence/{part}.{ENDINGS.get(part, 'json')}")
        if evidence.kept and receipt.inputs.upload_sha256:
            together = evidence.kept.begin is not None
            folder.take(evidence.kept.key, "evidence/uploads_together" if together else "evidence/upload")
            if together:
                folder.notes.append("evidence/uploads_together has every small file of the delivery")
    if receipt.model.version:
        _model(evidence.bundle, folder)
    if receipt.rows.accepted:
        with _MadeFrom.into(folder.root, evidence.bundle) as made_from:
            _see_answer(evidence, made_from, directory)
    if not evidence.is_request:
        _published(receipt, folder, lambda: _published_again(evidence, directory))
    return anchor


def _see_answer(evidence: Evidence, made_from: "_MadeFrom", directory: Path) -> None:
    """Show what an answer was made from, as it is scored again."""
    own, sources = evidence.accepted(), evidence.sources(evidence.series)
    with TemporaryDirectory(dir=directory) as name, RowSorter(Path(name)) as sorter:
        sorter.add(own.append_column("context", pa.repeat(False, own.num_rows)))
        folded = FoldedSeries(Path(name) / "folded")
        add_earlier_rows(sorter, folded, sources)
        scored = score_tables(
            sorter.chunk_tables(),
            sources.bundle,
            sources.settings.recovery,
            made_from,
            folded,
            level=sources.settings.level,
        )
        for _ in scored:
            pass


def _published_again(evidence: Evidence, directory: Path) -> dict[str, Path]:
    names = {evidence.file: evidence.receipt.answer_id}
    again = directory / "again"
    again.mkdir(exist_ok=True)
    sources = evidence.sources(evidence.series)
    return {"predictions": score_delivery(evidence.cleaned, names, sources, again, evidence.file)[evidence.file].path}


def _forecast(reference: Reference, folder: _Folder, directory: Path) -> str:
    """The evidence behind a forecast; the key of its receipt."""
    evidence = ForecastEvidence.of(reference.answer_id, folder.store)
    receipt, anchor = evidence.receipt, forecast_receipt_key(reference.answer_id)
    folder.take(anchor, "evidence/receipt.json")
    folder.take(receipt.evidence["champion"].key, "evidence/champion.json")
    _model(evidence.bundle, folder)
    sources = evidence.sources(evidence.series)
    days = last_days_of(sources.history, sources.history_version)
    newest = newest_of(days)
    current = days.loc[(days["date"] == newest) & ~days["retracted"], "symbol"]
    with _MadeFrom.into(folder.root, evidence.bundle) as made_from:
        next_opens(sources, current, newest, directory, made_from)

    def again() -> dict[str, Path]:
        return dict(write_files(forecast(sources, days, directory), receipt.forecast_id, directory))

    _published(receipt, folder, again)
    return anchor


def _model(bundle: ModelBundle, folder: _Folder) -> None:
    prefix = bundle_prefix(bundle.version)
    for name in OF_A_MODEL:
        if name in bundle.files:
            folder.take(prefix + name, f"model/{name}")


def _published(receipt: Receipt | ForecastReceipt, folder: _Folder, again: Callable[[], Mapping[str, Path]]) -> None:
    """What was published, as it was: what stands there now, or else what comes out again, where that is the same."""
    made: Mapping[str, Path] | None = None
    for what, vouched in receipt.published.items():
        if what.startswith("latest"):
            continue  # the same bytes as those of the day
        name = f"published/{what}.{ENDINGS.get(what, 'csv')}"
        with suppress(ObjectMissing):
            folder.take(vouched.key, name)
            if sha256_of_file(folder.root / name) == vouched.sha256:
                continue
        folder.files.pop(vouched.key, None)
        (folder.root / name).unlink(missing_ok=True)
        if what in ("predictions", "forecast", "left_out"):
            with suppress(CryptoMLError):
                made = again() if made is None else made
                if sha256_of_file(made[what]) == vouched.sha256:
                    folder.write(name, made[what].read_bytes())
                    folder.files[vouched.key] = name
                    folder.notes.append(f"{name} was computed again: what stands there now is not what was published")
                    continue
        folder.notes.append(f"{vouched.key} is not in the folder: what stands there now is not what was published")


class _MadeFrom:
    """Writes what predictions are made from, as it is shown (see `fingerprint.Sees`), to `made_from/` of a folder."""

    def __init__(self, root: Path, rows: IO[str], columns: Mapping[str, str]) -> None:
        self._root = root
        self._rows = csv.writer(rows, lineterminator="\n")
        self._rows.writerow(ROW)
        self._columns = columns
        self._states: list[pa.Table] = []
        self._file = rows

    @classmethod
    def into(cls, root: Path, bundle: ModelBundle) -> Self:
        """Into a folder; the columns of states are those that count for a bundle."""
        directory = root / "made_from"
        directory.mkdir(parents=True, exist_ok=True)
        columns = state_columns(bundle.manifest, bundle.document(SCALER))
        return cls(directory, (directory / "rows.csv").open("w", encoding="utf-8", newline=""), columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._states:
            with (self._root / "states.csv").open("w", encoding="utf-8", newline="") as out:
                states = csv.writer(out, lineterminator="\n")
                states.writerow(self._columns)
                for table in self._states:
                    states.writerows(_texts(table, list(self._columns)))

    def see(self, rows: pa.Table, block: FloatArray, states: pa.Table | None = None) -> None:  # noqa: ARG002
        """Take note of one chunk as it is scored."""
        line = pc.if_else(rows["context"], pa.scalar(None, pa.int64()), rows["line"])
        context = pc.cast(rows["context"], pa.int8())
        given = rows.drop_columns(["line", "context"]).append_column("line", line).append_column("context", context)
        self._rows.writerows(_texts(given, list(ROW)))
        if states is not None:
            self._states.append(hashed_states(states))


def _texts(table: pa.Table, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Rows as CSV has them: numbers as the shortest decimals that read back as the same float64, nothing where none."""
    for batch in table.select(columns).to_batches(max_chunksize=10_000):
        values = [batch.column(name).to_pylist() for name in columns]
        for row in zip(*values, strict=True):
            yield tuple("" if value is None or value != value else value for value in row)  # noqa: PLR0124 - NaN


def _chain(anchor: str, folder: _Folder, settings: Settings) -> tuple[tuple[int, int] | None, list[str]]:
    """The links from the one that names an object to the first that every witness knows, or to the head."""
    chain, store = EvidenceChain(folder.store), folder.store
    stored = store.head(anchor)
    written = stored.last_modified if stored else None
    listed = chain.listed()
    heads = _witnessed(folder, settings)
    late = [one for one in listed if written and one.last_modified >= written - LATE]
    found = _named(chain, late, anchor) or _named(chain, listed, anchor)
    if found is None:
        folder.notes.append("no link of the chain names the receipt yet: export it again after the next one is made")
        return None, []
    first = found.link.number
    until = max((_first_behind(some, first) for some in heads.values()), default=0) or None
    behind = [one for one in listed if first <= _number(one) <= (until or _number(listed[-1]))]
    records: dict[str, str] = {}
    for one, content in chain.contents(behind):
        folder.write(f"chain/{_number(one):08d}.json", content)
        records |= {record.key: record.sha256 for record in chain.parsed(one, content).link.records}
    delivery = re.match(rf"{ANSWERS}(\d+)[-/]", anchor)
    outcome = answered_key(delivery[1]) if delivery else ""
    if outcome in records:
        folder.take(outcome, "evidence/outcome.json")
    last, witnessed = _number(behind[-1]), []
    for number, (witness, some) in enumerate(heads.items(), 1):
        here = [head for head in some if first <= head.number <= last]
        folder.write(f"witness/{number}.jsonl", b"".join(head.line() for head in here))
        if here:
            witnessed.append(witness.name)
        for line, token in witness.tokens() if isinstance(witness, TimestampWitness) else ():
            for head in [head for head in here if head.line() == line]:
                folder.write(f"witness/{number}-{head.number:08d}.head", line)
                folder.write(f"witness/{number}-{head.number:08d}.tsr", token)
    return (first, last), witnessed


def _witnessed(folder: _Folder, settings: Settings) -> dict[Witness, list[WitnessedHead]]:
    """What each witness was told of this chain; one that cannot be asked is noted, and stops nothing."""
    heads: dict[Witness, list[WitnessedHead]] = {}
    for witness in witnesses(settings, folder.store):
        try:
            heads[witness] = witness.heads(folder.store.uri(""))
        except CryptoMLError as error:
            folder.notes.append(f"{witness.name} could not be asked: {error}")
    return heads


def _first_behind(heads: Sequence[WitnessedHead], number: int) -> int:
    """The first link at or behind a number that a witness was told of; 0 where there is none."""
    return min((head.number for head in heads if head.number >= number), default=0)


def _named(chain: EvidenceChain, listed: Sequence[StoredObject], key: str) -> Stored | None:
    """The first of some links that names a record."""
    for one, content in chain.contents(listed):
        found = chain.parsed(one, content)
        if any(record.key == key for record in found.link.records):
            return found
    return None


def _number(listed: StoredObject) -> int:
    return int(re.sub(r"\D", "", listed.key.rpartition("/")[2]))

"""Checks the exported evidence of one answer: hashes, chain, witnesses, and the numbers computed again.

    python check.py                          all of it; the numbers need numpy and onnxruntime
    python check.py --hashes-only            what Python alone can check
    python check.py --witness heads.jsonl    and what a witness said that you asked yourself

Python 3.10 or newer. Nothing of crypto_ml is imported, nothing is unpickled or run, and nothing outside this folder is
read but the file of the witness. Exit code 0: everything in the folder follows from what is said last; 1: something
does not, which is said in one sentence.
"""

import argparse
import csv
import gzip
import hashlib
import importlib.util
import io
import json
import re
import sys
import zipfile
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

FORMAT = 1
SUMS = "SHA256SUMS"
PACK_SEAL = b"crypto_ml pack, format 1, sha256 "
MOST_UNPACKED = 2 << 30
BLOCK = 1 << 20
CLOCKS = timedelta(minutes=15)
LONGEST_RUN = timedelta(hours=2)

ROW_COLUMNS = {
    "symbol": "str", "date": "day", "open": "float", "high": "float", "low": "float", "close": "float",
    "market": "float", "volume": "float", "slug": "str", "line": "int",
}  # fmt: skip
"""A row as it is hashed; what came from the history is hashed without its line."""

ALWAYS = set(ROW_COLUMNS)
"""Columns that count also where no row has a value in them."""


class WrongError(Exception):
    """What is not as it was recorded, in one sentence."""


def sha256(content: bytes) -> str:
    """The sha256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The sha256 of a file of any size, in hexadecimal; a block of it is in memory at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def told(step: str, what: str) -> None:
    """One line for people; text from outside never steers the terminal."""
    print("".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in f"{step:<10} {what}"), flush=True)


@dataclass
class Folder:
    """The folder: what it says of itself, and the stored objects in it by their keys: their hashes, the files that they
    are in, and the bytes of those that are in a pack."""

    root: Path
    said: dict[str, Any]
    objects: dict[str, str]
    files: dict[str, str]
    packed: dict[str, bytes] = field(default_factory=dict)
    vouched: dict[str, str] = field(default_factory=dict)

    @property
    def answer_id(self) -> str:
        return str(self.said["answer_id"])

    def name(self, key: str) -> str:
        """The file that an object is in."""
        return self.files.get(key, f"{key} in the pack")

    def content(self, key: str) -> bytes:
        """The bytes of an object, which is small or is computed with: what is only hashed is not read whole."""
        if key not in self.objects:
            raise WrongError(f"{key} is not in the folder")
        content = self.packed[key] if key in self.packed else (self.root / self.files[key]).read_bytes()
        if sha256(content) != self.objects[key]:
            raise WrongError(f"{self.name(key)} was altered while it was checked")
        return content

    def vouch(self, key: str, expected: str, by: str, *, needed: bool = True) -> None:
        """Hold an object against the hash that something in the folder has of it."""
        self.vouched[key] = by
        if key not in self.objects:
            if needed:
                raise WrongError(f"{key} is not in the folder, and {by} names it")
            return
        if self.objects[key] != expected:
            raise WrongError(f"{self.name(key)} is not what {by} says that {key} was: its sha256 is another")

    def document(self, key: str) -> Any:
        """An object as JSON."""
        return parsed(self.content(key), self.name(key))


def parsed(content: bytes, name: str) -> Any:
    """JSON from some file."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise WrongError(f"{name} is no JSON ({error})") from error


def check_sums(root: Path) -> dict[str, str]:
    """Hold every file of the folder against SHA256SUMS; their names, and the sha256 of each."""
    try:
        lines = (root / SUMS).read_text("utf-8").splitlines(keepends=True)
    except (OSError, ValueError) as error:
        raise WrongError(f"{SUMS} cannot be read: {error}") from error
    named: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        found = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9_.\-/]+)\n", line)
        if not found or ".." in found[2] or found[2].startswith("/") or found[2] in named:
            raise WrongError(f"line {number} of {SUMS} was altered: it is no hash and name")
        named[found[2]] = found[1]
    if list(named) != sorted(named):
        raise WrongError(f"{SUMS} was altered: its names are not in order")
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if not path.is_dir()}
    if strange := sorted(name for name, path in paths.items() if path.is_symlink()):
        raise WrongError(f"{strange[0]} is a link, and leads out of what was exported")
    there = set(paths) - {SUMS}
    altered = [name for name in sorted(there & named.keys()) if sha256_of_file(paths[name]) != named[name]]
    gone, more = sorted(named.keys() - there), sorted(there - named.keys())
    wrong = [f"{name} was altered" for name in altered] + [f"{name} is gone" for name in gone]
    wrong += [f"{name} was not exported" for name in more]
    if wrong:
        raise WrongError(f"{'; '.join(wrong)} ({SUMS} has other hashes)")
    return named


def opened(root: Path, named: Mapping[str, str]) -> Folder:
    """The folder, with every object in it."""
    said = parsed((root / "answer.json").read_bytes(), "answer.json")
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise WrongError(
            f"answer.json is not of format {FORMAT}, which this script checks; take the one of its release"
        )
    folder = Folder(root, said, {}, {})
    for one in said["objects"]:
        if one["file"] not in named:
            raise WrongError(f"answer.json names {one['file']!r}, which is no file of this folder")
        folder.files[one["key"]] = one["file"]
        folder.objects[one["key"]] = named[one["file"]]
    if said["kind"] == "request":
        (pack,) = [key for key in folder.objects if key.startswith("receipts/requests/")]
        folder.vouched[pack] = "its seal"
        folder.packed = unpacked(folder.content(pack), folder.files[pack])
        for key, content in folder.packed.items():
            if key in folder.objects:
                raise WrongError(f"{folder.files[key]} is in the pack as well")
            folder.objects[key] = sha256(content)
            folder.vouched[key] = "the pack"
    return folder


def unpacked(content: bytes, name: str) -> dict[str, bytes]:
    """The objects of a pack of requests: a zip, with the sha256 of everything before at its end."""
    sealed, seal = content[:-64], content[-64:]
    if not sealed.endswith(PACK_SEAL) or sha256(sealed).encode() != seal:
        raise WrongError(f"{name} is no pack as it was written: its seal is another")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as pack:
            if sum(entry.file_size for entry in pack.infolist()) > MOST_UNPACKED:
                raise WrongError(f"{name} expands to more than any pack does")
            return {entry.filename: pack.read(entry) for entry in pack.infolist()}
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise WrongError(f"{name} cannot be unpacked ({error})") from error


# receipt


def check_receipt(folder: Folder) -> tuple[str, dict[str, Any]]:
    """The key of the object that has the receipt, and the receipt: its seal, and its name, follow from what it says."""
    answer = folder.answer_id
    forecast = folder.said["kind"] == "forecast"
    prefix = "receipts/forecasts/" if forecast else "receipts/answers/"
    alone, found = f"{prefix}{answer}.json", None
    for key in sorted(folder.objects):
        if key == alone:
            found = key, folder.document(key)
        elif not forecast and key.startswith(f"{prefix}{answer.partition('-')[0]}/"):
            together = _together(folder.content(key), folder.name(key))
            if answer in together:
                found = key, together[answer]
    if found is None:
        raise WrongError(f"the folder has no receipt of {answer}")
    key, receipt = found
    unsealed = {name: value for name, value in receipt.items() if name != "seal"}
    if receipt.get("seal") != sha256(json.dumps(unsealed, sort_keys=True).encode()):
        raise WrongError(f"the receipt in {folder.name(key)} was altered: its seal does not follow from what it says")
    inputs = receipt["inputs"]
    begin = inputs["target_date" if forecast else "delivery"]
    name = f"{begin}-{sha256(json.dumps(inputs, sort_keys=True).encode())[:16]}"
    if not receipt.get("forecast_id" if forecast else "answer_id") == name == answer:
        raise WrongError(f"the receipt in {folder.name(key)} is of {name} by its inputs, and not of {answer}")
    if receipt["format"] != (1 if forecast else 2):
        raise WrongError(f"the receipt is of format {receipt['format']}, which this script does not know")
    return key, receipt


def _together(content: bytes, name: str) -> Mapping[str, Any]:
    """The receipts of a delivery of several files, which are sealed once more."""
    said, _, seal = content.decode(errors="replace").rpartition(', "seal": ')
    if seal != f'"{sha256((said + "}").encode())}"}}\n':
        raise WrongError(f"{name} was altered: its seal does not follow from what it says")
    receipts: Mapping[str, Any] = parsed(content, name)["receipts"]
    return receipts


# chain and witnesses


@dataclass
class Chain:
    """The links of the folder, by number: their sha256 and times; and the newest record of each key, with its link."""

    hashes: dict[int, str]
    times: dict[int, str]
    records: dict[str, tuple[int, Mapping[str, Any]]]
    taken_in: set[str]

    @property
    def last(self) -> int:
        return max(self.hashes)


def check_chain(root: Path) -> Chain | None:
    """Every link of the folder names the one before it; None where the folder has none."""
    paths = sorted((root / "chain").glob("*.json")) if (root / "chain").is_dir() else []
    if not paths:
        return None
    chain = Chain({}, {}, {}, set())
    before: tuple[int, str, str] | None = None
    begun = False
    for path in paths:
        content = path.read_bytes()
        link = parsed(content, f"chain/{path.name}")
        number = link["number"]
        if link["format"] != 1 or path.name != f"{number:08d}.json":
            raise WrongError(f"chain/{path.name} is not link {number} in a format that this script knows")
        if before and (number != before[0] + 1 or link["previous"] != before[1]):
            raise WrongError(
                f"chain/{path.name} does not name the link before it: one of the two was altered or left out"
            )
        if before and datetime.fromisoformat(link["at"]) < datetime.fromisoformat(before[2]):
            raise WrongError(f"chain/{path.name} says that it is older than the link before it")
        if link.get("taken_in") and begun:
            raise WrongError(f"chain/{path.name} says that the chain began with it, and it began before")
        begun = begun or bool(link.get("complete"))
        before = number, sha256(content), link["at"]
        chain.hashes[number], chain.times[number] = before[1], before[2]
        for record in link["records"]:
            known = chain.records.get(record["key"])
            may_change = known and known[1].get("open") and record["key"].startswith("receipts/answered/")
            if known and known[1]["sha256"] != record["sha256"] and not may_change:
                raise WrongError(f"{record['key']} was changed between link {known[0]} and link {number}")
            if known is None or known[1]["sha256"] != record["sha256"]:
                chain.records[record["key"]] = number, record
            if link.get("taken_in"):
                chain.taken_in.add(record["key"])
    return chain


def check_anchor(folder: Folder, chain: Chain, key: str, receipt: Mapping[str, Any]) -> int:
    """The link that has the object with the receipt; what it says of its time is what S3 said."""
    if folder.said["kind"] == "request":
        (key,) = [one for one in folder.objects if one.startswith("receipts/requests/")]
    if key not in chain.records:
        raise WrongError(f"no link in the folder names {key}, although there are links")
    number, record = chain.records[key]
    folder.vouch(key, record["sha256"], f"link {number}")
    claimed = receipt["timings"]["made_at" if folder.said["kind"] == "forecast" else "answered_at"]
    written, at = datetime.fromisoformat(record["written"]), datetime.fromisoformat(claimed)
    taken_in = key in chain.taken_in
    if at > written + CLOCKS or (not taken_in and at < written - CLOCKS - LONGEST_RUN):
        raise WrongError(f"the receipt says that it is of {claimed}, and S3 that it was written {record['written']}")
    if taken_in:
        told("chain", f"began with link {number}: that the receipt is of {claimed} only it says itself, and of before")
    return number


def heads_in(content: bytes, deployment: str, name: str) -> list[dict[str, Any]]:
    """The heads of this deployment's chain that a witness has, a line of JSON each."""
    heads = []
    for number, line in enumerate(content.splitlines(), 1):
        head = parsed(line, f"line {number} of {name}")
        if head["deployment"] == deployment:
            heads.append(head)
    return heads


def check_witness(
    content: bytes, name: str, folder: Folder, chain: Chain, anchor: int, *, exported: bool = False
) -> int | None:
    """The first head at or behind the receipt's link that a witness was told of, and that is the link here. exported:
    the file is of the folder, and has nothing else."""
    first = None
    heads = heads_in(content, str(folder.said["deployment"]), name)
    if exported and len(heads) != len(content.splitlines()):
        raise WrongError(f"{name} has heads of another deployment than {folder.said['deployment']}")
    for head in heads:
        number = head["number"]
        if number not in chain.hashes and not exported:
            continue
        if (head["format"], head["sha256"], head["at"]) != (1, chain.hashes.get(number), chain.times.get(number)):
            raise WrongError(f"{name} was told of another link {number} than the folder has: the chain was made anew")
        if first is None and number >= anchor:
            first = number
    return first


# evidence


def check_evidence(folder: Folder, receipt: Mapping[str, Any], chain: Chain | None) -> None:
    """Every object that the receipt names is what it says; every object of the folder is vouched for by something."""
    for part, vouched in receipt["evidence"].items():
        needed = part not in ("accepted", "refused")
        folder.vouch(vouched["key"], vouched["sha256"], "the receipt", needed=needed)
    for vouched in receipt["published"].values():
        folder.vouch(vouched["key"], vouched["sha256"], "the receipt", needed=False)
    _check_champion(folder, receipt)
    _check_bundle(folder, receipt)
    if folder.said["kind"] != "forecast":
        _check_upload(folder, receipt)
    outcome = f"receipts/answered/{receipt['inputs'].get('delivery')}.json"
    if outcome in folder.objects and outcome not in folder.vouched and chain and outcome in chain.records:
        number, record = chain.records[outcome]
        folder.vouch(outcome, record["sha256"], f"link {number}")
        _check_outcome(folder, outcome, receipt)
    for key in folder.objects:
        if key not in folder.vouched and (chain is not None or not key.startswith("receipts/")):
            raise WrongError(f"nothing in the folder vouches for {folder.name(key)}")


def _check_champion(folder: Folder, receipt: Mapping[str, Any]) -> None:
    key = receipt["evidence"]["champion"]["key"]
    entry, number = folder.document(key), receipt["inputs"]["champion_pointer"]
    if receipt["champion"] != {"pointer": number, **entry} or not key.endswith(f"/{number:08d}.json"):
        raise WrongError(f"the receipt repeats another entry of the champion pointer than {folder.name(key)}")
    if (entry["version"], entry["sha256"]) != (receipt["inputs"]["model_version"], receipt["inputs"]["bundle_sha256"]):
        raise WrongError(f"{folder.name(key)} approves another model than the receipt names")


def _check_bundle(folder: Folder, receipt: Mapping[str, Any]) -> None:
    key = receipt["evidence"]["bundle"]["key"]
    manifest = folder.document(key)
    parts = {name: manifest[name] for name in ("format", "target", "features", "window", "slugs", "weights_sha256")}
    parts |= {name: manifest["files"].get(name) for name in ("network.onnx", "scaler.json", "training_manifest.json")}
    if "serving.json" in manifest["files"]:
        parts["serving.json"] = manifest["files"]["serving.json"]
    found = sha256(json.dumps(parts, sort_keys=True).encode())
    if not found == manifest["sha256"] == receipt["inputs"]["bundle_sha256"]:
        raise WrongError(f"{folder.name(key)} is not the model {receipt['inputs']['model_version']} of the receipt")
    place = key.removesuffix("bundle.json")
    for name, expected in manifest["files"].items():
        needed = name in ("network.onnx", "scaler.json", "serving.json")
        folder.vouch(place + name, expected, folder.name(key), needed=needed)


def _check_upload(folder: Folder, receipt: Mapping[str, Any]) -> None:
    """The bytes that were received."""
    expected = receipt["inputs"]["upload_sha256"]
    _, key = upload_file(folder, receipt)
    found = sha256(upload_bytes(folder, receipt)) if _is_together(key) else folder.objects[key]
    if expected not in (None, found):
        raise WrongError("the bytes of the upload are not those that the receipt names")


def upload_file(folder: Folder, receipt: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """What was recorded of the upload as it was received, and the key that it is under; small ones of a delivery are
    kept one behind the other."""
    received_key = receipt["evidence"]["received"]["key"]
    received = folder.document(received_key)
    own = [one for one in received["files"] if one["upload"] == receipt["upload"]]
    if not own:
        raise WrongError(f"{folder.name(received_key)} does not have the upload of the receipt")
    file, together = own[0], received.get("together")
    if together is None or file.get("begin") is None:
        key = f"raw/uploads/{file['sha256']}"
        folder.vouch(key, file["sha256"], folder.name(received_key))
        return file, key
    key = f"raw/together/{received['delivery']}/{together}"
    folder.vouch(key, together, folder.name(received_key))
    return file, key


def upload_bytes(folder: Folder, receipt: Mapping[str, Any]) -> bytes:
    """The upload as it was received."""
    file, key = upload_file(folder, receipt)
    content = folder.content(key)
    return content[file["begin"] : file["begin"] + file["upload"]["size"]] if _is_together(key) else content


def _is_together(key: str) -> bool:
    return key.startswith("raw/together/")


def _check_outcome(folder: Folder, key: str, receipt: Mapping[str, Any]) -> None:
    named = folder.document(key).get(receipt["upload"]["key"])
    if named is None or (
        named["answer_id"] == folder.answer_id and named["outcome"] not in (receipt["outcome"], "SKIPPED")
    ):
        raise WrongError(f"{folder.name(key)} has another outcome of the upload than the receipt")


# rows


@dataclass
class Rows:
    """Rows of series in order: what was answered (context false), and what came from the history beside it."""

    columns: dict[str, list[Any]]
    context: list[bool]

    def __len__(self) -> int:
        return len(self.context)

    def of(self, *, context: bool) -> dict[str, list[Any]]:
        """The columns of those rows that are context, or of the others."""
        return {
            name: [value for value, one in zip(values, self.context, strict=True) if one is context]
            for name, values in self.columns.items()
        }


READ: dict[str, Callable[[str], Any]] = {
    "str": lambda text: text or None,
    "day": lambda text: date.fromisoformat(text).toordinal() - 719163 if text else None,
    "float": lambda text: float(text) if text else float("nan"),
    "int": lambda text: int(text) if text else None,
}


def table(path: Path, name: str, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """A CSV of the folder."""
    if not path.exists():
        raise WrongError(f"{name} is not in the folder")
    usual = csv.field_size_limit(1 << 30)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {column: READ[kind](row[column]) for column, kind in columns.items()} for row in csv.DictReader(file)
            ]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise WrongError(f"{name} is no table of rows ({error!r})") from error
    finally:
        csv.field_size_limit(usual)


def read_rows(root: Path) -> Rows:
    """`made_from/rows.csv`."""
    found = table(root / "made_from/rows.csv", "made_from/rows.csv", {**ROW_COLUMNS, "context": "int"})
    columns = {name: [row[name] for row in found] for name in ROW_COLUMNS}
    return Rows(columns, [row["context"] == 1 for row in found])


def state_columns(manifest: Mapping[str, Any], scaler: Mapping[str, Any]) -> dict[str, str]:
    """The columns of a state that count for a model: what series are scaled by whose first rows came as sums."""
    pooled = manifest["target"] == "relative_gap"
    scaled = [] if pooled else list(scaler.get("columns", []))
    features = set() if pooled else set(manifest["features"])
    named = ("open", "high", "low", "close", "close_ratio", "spread")
    levels = [name for name in named if name == "close" or {name, f"v_{name}"} & features]
    sums = [f"{what}_{term}" for what in ("first", "sum", "squares") for term in (*scaled, "gap")]
    days = {"first_day": "day", "last_folded_day": "day"}
    return {
        "symbol": "str", "folded": "int", **days, "folded_slugs": "str",
        **dict.fromkeys([*sums, *(f"last_{name}" for name in levels)], "float"),
    }  # fmt: skip


def rows_sha256(columns: Mapping[str, str], values: Mapping[str, Sequence[Any]]) -> str:
    """The hash of rows: of each column by itself, floats and integers in eight bytes, texts behind their lengths."""
    whole = hashlib.sha256()
    for name, kind in columns.items():
        there = [value is not None and value == value for value in values[name]]  # noqa: PLR0124 - NaN is not itself
        if name not in ALWAYS and not any(there):
            continue
        digest, texts = hashlib.sha256(name.encode()), hashlib.sha256()
        words: array[Any]
        if kind == "float":
            words = array("d", [value if one else float("nan") for value, one in zip(values[name], there, strict=True)])
        elif kind == "str":
            encoded = [(value or "").encode() for value in values[name]]
            texts.update(b"".join(encoded))
            words = array("q", [len(text) if one else -1 for text, one in zip(encoded, there, strict=True)])
        else:
            words = array("q", [value if one else -(1 << 63) for value, one in zip(values[name], there, strict=True)])
        if sys.byteorder == "big":
            words.byteswap()
        digest.update(words.tobytes())
        whole.update(digest.digest())
        if kind == "str":
            whole.update(texts.digest())
    return whole.hexdigest()


def check_rows(
    receipt: Mapping[str, Any], rows: Rows, states: Sequence[Mapping[str, Any]], columns: Mapping[str, str]
) -> None:
    """The rows of the folder have the hashes that the receipt has of what was accepted and of what was read."""
    prints = receipt["fingerprints"]
    if "accepted_rows" in prints and rows_sha256(ROW_COLUMNS, rows.of(context=False)) != prints["accepted_rows"]:
        raise WrongError("made_from/rows.csv has other rows of the upload than the receipt's hash is of")
    observed = {name: kind for name, kind in ROW_COLUMNS.items() if name != "line"}
    found = rows_sha256(observed, rows.of(context=True))
    if earlier := receipt["inputs"].get("earlier"):
        of_states = rows_sha256(columns, {name: [one[name] for one in states] for name in columns})
        found = sha256(f"{earlier} {found} {of_states}".encode())
    if prints["earlier_rows"] is None:
        if any(rows.context) or states:
            raise WrongError("made_from/ has rows of the history, and the receipt says that none were read")
    elif found != prints["earlier_rows"]:
        raise WrongError("made_from/ has other earlier rows than the receipt's hash is of")


def check_as_received(folder: Folder, receipt: Mapping[str, Any], rows: Rows) -> str:
    """Each accepted row against its line of the upload, where that was read as it stands; what came of it."""
    content, how = upload_bytes(folder, receipt), receipt.get("read_as") or {}
    plain = {
        "encoding": "utf-8",
        "header_line": 1,
        "decimal": ".",
        "thousands": "",
        "scaled_numbers": False,
        "layout": None,
    }
    if how.get("format", "csv") == "parquet" or any(how.get(name, value) != value for name, value in plain.items()):
        return f"not compared with the upload, which was read as: {how.get('in_words')}"
    theirs = {name: str(how.get("columns", {}).get(name, name)).lower() for name in ("open", "high", "low", "close")}
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        json_records = folder.said["kind"] == "request" and receipt["upload"]["key"].endswith(".json")
        lines = _lines(content, how.get("delimiter", ","), json_records=json_records)
    except (ValueError, OSError, EOFError) as error:
        return f"not compared with the upload ({error})"
    compared, own = 0, rows.of(context=False)
    for at, number in enumerate(own["line"]):
        given = lines.get(number, {})
        numbers = {name: _number(given.get(column)) for name, column in theirs.items()}
        if None in numbers.values():
            continue
        if any(own[name][at] != value for name, value in numbers.items()):
            raise WrongError(f"line {number} of the upload has other prices than made_from/rows.csv says of it")
        compared += 1
    return f"prices of {compared:,} of {len(own['line']):,} compared with their lines of the upload"


def _lines(content: bytes, delimiter: str, *, json_records: bool) -> dict[int, dict[str, Any]]:
    """What stands in each line of the upload (of records in JSON, the first counts as line 2), by names of columns."""
    if json_records:
        found = json.loads(content)
        records = [found] if isinstance(found, dict) else found
        return {number: {name.lower(): value for name, value in one.items()} for number, one in enumerate(records, 2)}
    text = content.decode("utf-8-sig")
    if '"' in text:
        raise ValueError("it has quoted values")
    header, *rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    names = [name.strip().lower() for name in header.split(delimiter)]
    return {number: dict(zip(names, line.split(delimiter), strict=False)) for number, line in enumerate(rest, 2)}


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


# numbers


def computing() -> ModuleType:
    """compute.py, which stands beside this file, and what it needs."""
    spec = importlib.util.spec_from_file_location("compute", Path(__file__).with_name("compute.py"))
    if spec is None or spec.loader is None:
        raise WrongError("compute.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        module.require()
    except ImportError as error:
        raise WrongError(
            f"the numbers need numpy and onnxruntime ({error}): install them, or say --hashes-only"
        ) from error
    return module


def check_numbers(folder: Folder, receipt: Mapping[str, Any], rows: Rows, states: Sequence[Mapping[str, Any]]) -> str:
    """Compute every number again, and hold it against what was published; what came of it."""
    place = receipt["evidence"]["bundle"]["key"].removesuffix("bundle.json")
    settings, published = receipt["settings"], receipt["published"]
    compute = computing()
    try:
        made = compute.answers(
            rows.columns,
            rows.context,
            states,
            manifest=folder.document(f"{place}bundle.json"),
            scaler=folder.document(f"{place}scaler.json"),
            rule=folder.document(f"{place}serving.json") if f"{place}serving.json" in folder.objects else None,
            network=folder.content(f"{place}network.onnx"),
            recovery=receipt["inputs"].get("recovery", "one_step"),
            level=float(receipt["inputs"].get("interval_level") or settings.get("interval_level", "0.90")),
        )
    except compute.CannotComputeError as error:
        raise WrongError(str(error)) from error
    if made.feature_block != receipt["fingerprints"]["feature_block"]:
        raise WrongError("the same rows give other features here than the receipt's hash is of (another processor?)")
    what = "forecast" if folder.said["kind"] == "forecast" else "predictions"
    _tell_row(folder, made.rows)
    if what not in published or published[what]["key"] not in folder.objects:
        return (
            f"{len(made.rows):,} computed; what was published is not in the folder, and they are held against nothing"
        )
    expected = as_forecast(made.rows, folder, receipt) if what == "forecast" else as_predictions(made.rows, folder)
    farthest = _compared(expected, folder.content(published[what]["key"]), folder.name(published[what]["key"]))
    if farthest:
        return f"{len(expected):,} come out again within {farthest} ulp of a float32, as on another processor"
    return f"{len(expected):,} come out again to the last bit"


def _tell_row(folder: Folder, made: Sequence[Mapping[str, Any]]) -> None:
    """The one row that was asked for when the folder was exported, as it comes out."""
    asked = folder.said.get("row") or {}
    counted = [row for row in made if row["status"] == "predicted"] if folder.said["kind"] == "forecast" else made
    for number, row in enumerate(counted, 1):
        line = number if folder.said["kind"] == "forecast" else row["line"]
        if asked.get("line") == line or (asked.get("symbol"), asked.get("date")) == (row["symbol"], _day(row["date"])):
            told("row", f"{row['symbol']} {_day(row['date'])}: pred_open {row['pred_open']!r} ({row['status']})")


def as_predictions(made: Iterable[Mapping[str, Any]], folder: Folder) -> list[dict[str, Any]]:
    """Computed rows as a file of predictions has them."""
    return [
        {
            "symbol": row["symbol"], "index": str(row["index"]), "date": _day(row["date"]),
            "pred_open": row["pred_open"], "val_open": row["val_open"], "status": row["status"],
            "prediction_id": f"{folder.answer_id}-{row['line']}", **row["beside"],
        }
        for row in made
    ]  # fmt: skip


def as_forecast(made: Iterable[Mapping[str, Any]], folder: Folder, receipt: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Computed rows as a forecast has them."""
    inputs = receipt["inputs"]
    found: list[dict[str, Any]] = []
    for row in made:
        if row["status"] == "predicted":
            if _day(row["date"]) != inputs["target_date"]:
                raise WrongError(f"made_from/rows.csv asks for another day than {inputs['target_date']}")
            found.append(
                {
                    "symbol": row["symbol"], "as_of": receipt["newest_day"], "target_date": inputs["target_date"],
                    "pred_open": row["pred_open"], "model_version": inputs["model_version"],
                    "prediction_id": f"{folder.answer_id}-{len(found) + 1}", **row["beside"],
                }
            )  # fmt: skip
    return found


def _day(number: int) -> str:
    return date.fromordinal(number + 719163).isoformat()


def _compared(expected: Sequence[Mapping[str, Any]], published: bytes, name: str) -> int:
    """The largest difference of numbers from those published, in ulp of a float32; 0 where every bit is the same."""
    rows = list(csv.DictReader(io.StringIO(published.decode("utf-8"), newline="")))
    if len(rows) != len(expected):
        raise WrongError(f"{name} has {len(rows)} rows, and {len(expected)} come out")
    farthest = 0
    for row, made in zip(rows, expected, strict=True):
        for column, value in made.items():
            if isinstance(value, str):
                if row.get(column) != value:
                    raise WrongError(
                        f"{name} says {column} {row.get(column)!r} of {made['prediction_id']}, not {value!r}"
                    )
                continue
            text = row.get(column)
            there = float(text) if text else float("nan")
            if there == value or (there != there and value != value):  # noqa: PLR0124 - NaN is not itself
                continue
            apart = _ulps(there, value)
            if column == "val_open" or apart > MOST_ULP:
                raise WrongError(f"{name} says {column} {text!r} of {made['prediction_id']}, and {value!r} comes out")
            farthest = max(farthest, apart, 1)
    return farthest


MOST_ULP = 16
"""The network's numbers are float32, which another processor may round otherwise; more than this is another result."""


def _ulps(one: float, other: float) -> int:
    """How many float32 numbers lie between two numbers."""
    places = []
    for value in (one, other):
        bits = int.from_bytes(array("f", [value]).tobytes(), sys.byteorder)
        places.append(bits if bits < 1 << 31 else -(bits & 0x7FFFFFFF))
    return abs(places[0] - places[1]) if one == one and other == other else 1 << 32  # noqa: PLR0124


# all of it


def check(root: Path, *, hashes_only: bool = False, witness: Path | None = None) -> str:
    """Check a folder, telling each step; what everything in it follows from. Raises WrongError."""
    named = check_sums(root)
    told("files", f"{len(named)} are as they were exported")
    try:
        return _checked(root, named, hashes_only=hashes_only, witness=witness)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError, OSError) as error:
        raise WrongError(f"the folder does not say what such a folder says ({error!r})") from error


def _checked(root: Path, named: Mapping[str, str], *, hashes_only: bool, witness: Path | None) -> str:
    folder = opened(root, named)
    key, receipt = check_receipt(folder)
    told("receipt", f"{folder.answer_id}: its seal and its name follow from what it says")
    chain = check_chain(root)
    follows = _chained(folder, chain, key, receipt, witness)
    check_evidence(folder, receipt, chain)
    champion, software = receipt["champion"], receipt["software"]
    told("evidence", f"{len(folder.objects)} stored objects are those that the receipt, the chain and the model name")
    told(
        "model",
        f"{receipt['inputs']['model_version']}, {champion['action']} by {champion['by']!r}: {champion['why']!r}",
    )
    told("software", f"said to be crypto_ml {software['package']}, image {software['image'] or 'not known'}")
    if not (root / "made_from").is_dir():
        told("rows", "none were accepted, so nothing was computed")
        return follows
    place = receipt["evidence"]["bundle"]["key"].removesuffix("bundle.json")
    columns = state_columns(folder.document(f"{place}bundle.json"), folder.document(f"{place}scaler.json"))
    rows = read_rows(root)
    path = root / "made_from/states.csv"
    states = table(path, "made_from/states.csv", columns) if path.exists() else []
    check_rows(receipt, rows, states, columns)
    told(
        "rows",
        f"{len(rows) - sum(rows.context):,} answered, {sum(rows.context):,} of the history: as the receipt has them",
    )
    if folder.said["kind"] != "forecast":
        told("", check_as_received(folder, receipt, rows))
    told("numbers", "not computed" if hashes_only else check_numbers(folder, receipt, rows, states))
    return follows


def _chained(folder: Folder, chain: Chain | None, key: str, receipt: Mapping[str, Any], witness: Path | None) -> str:
    if chain is None:
        if witness:
            raise WrongError("no link is in the folder, so that no witness can know of it: export it again")
        folder.vouched[key] = "nobody"
        for more in list(folder.objects):
            if more.startswith(("receipts/requests/", "receipts/answered/")):
                folder.vouched[more] = "nobody"
        told("chain", "NOT SHOWN: no link named the receipt when this was exported")
        return (
            "the receipt alone, which whoever wrote it may have written at any time: nothing says since when it is so"
        )
    anchor = check_anchor(folder, chain, key, receipt)
    told("chain", f"link {anchor} of {chain.times[anchor]} has the receipt, and {chain.last - anchor} follow from it")
    for path in sorted((folder.root / "witness").glob("*.jsonl")):
        name = f"witness/{path.name}"
        known = check_witness(path.read_bytes(), name, folder, chain, anchor, exported=True)
        told("witness", f"{name} says that it was told of link {known}" if known else f"{name} knows no link of these")
    head = f"link {chain.last} of {chain.times[chain.last]}, sha256 {chain.hashes[chain.last]}"
    if witness is None:
        return (
            f"{head}: ask a witness whether it was told of it (--witness), what is in this folder may come from anybody"
        )
    known = check_witness(witness.read_bytes(), str(witness), folder, chain, anchor)
    if known is None:
        raise WrongError(
            f"{witness} was told of no link from {anchor} to {chain.last}: ask for all that the witness has"
        )
    told("witness", f"{witness} was told of link {known} of {chain.times[known]}")
    return f"link {known} of {chain.times[known]}, sha256 {chain.hashes[known]}, which your witness was told of"


def main() -> int:
    """The command."""
    asked = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    asked.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent, help="this one, if not given")
    asked.add_argument(
        "--hashes-only", action="store_true", help="without numpy and onnxruntime: no number is computed"
    )
    asked.add_argument("--witness", type=Path, help="what a witness has, a line of JSON for each head, got from itself")
    given = asked.parse_args()
    sys.dont_write_bytecode = True  # nothing is added to the folder
    try:
        follows = check(given.folder, hashes_only=given.hashes_only, witness=given.witness)
    except WrongError as wrong:
        told("REFUSED", str(wrong))
        return 1
    except OSError as error:
        told("REFUSED", f"the folder cannot be read: {error}")
        return 1
    told("WHOLE", f"it follows from {follows}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

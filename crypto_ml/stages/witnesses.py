"""Where the head of the chain of evidence is told to whoever a writer of the bucket has no hold of.

A chain can be made anew as a whole; then nothing in the bucket says so. A witness keeps what the head was: daily, and
at each decision on what serves. Nothing here replaces or removes what a witness has.
"""

import json
import os
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit, urlunsplit

from crypto_ml.digest import sha256_of
from crypto_ml.errors import CryptoMLError, Refused, Unavailable
from crypto_ml.extras import require_timestamps
from crypto_ml.forecasting.evaluation import Verdict
from crypto_ml.ledger.chain import Head
from crypto_ml.ledger.formats.reading import read_record, too_new
from crypto_ml.ledger.formats.witnessed_v1 import FORMAT, WitnessedHead
from crypto_ml.ledger.layout import TIMESTAMPS
from crypto_ml.settings import Settings
from crypto_ml.stages.timestamps import QUERY, BadTimestamp, request_for, stamped_at
from crypto_ml.storage.elsewhere import connect_elsewhere
from crypto_ml.storage.objects import ObjectStore

EVERY: Final = timedelta(hours=24)
SECONDS: Final = 20.0
MOST_TOKEN: Final = 1 << 20
MOST_BYTES: Final = 64 << 20
"""Of what an endpoint answers: about a thousand years of heads."""


class BadWitness(Refused):
    """A witness that cannot be one."""


class WitnessUnavailable(Unavailable):
    """A witness that does not answer, or does not take what it is told."""


class Witness(ABC):
    """One place that keeps heads. name: for people; nothing of its address, which may hold secrets."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def tell(self, head: WitnessedHead) -> None:
        """Have it keep a head. Raises WitnessUnavailable, BadWitness, and what a store raises."""

    @abstractmethod
    def heard(self) -> bytes:
        """Everything it was told, a line each. Raises as `tell`."""

    def heads(self, deployment: str) -> list[WitnessedHead]:
        """The heads of a deployment that it was told, in order. Raises as `tell`; RecordDamaged, RecordTooNew."""
        found = []
        for number, line in enumerate(self.heard().splitlines(), 1):
            where = f"line {number} of {self.name}"
            try:
                document = json.loads(line)
            except ValueError as error:
                raise BadWitness(f"{where} is no head of a chain; look at what else writes there") from error
            head = read_record(WitnessedHead, document, where)
            if head.format > FORMAT:
                raise too_new("head", where, head.format, FORMAT)
            if head.deployment == deployment:
                found.append(head)
        return found


class FileWitness(Witness):
    """A file that lines are added to: on another machine, or one that the system lets nobody but add to."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name)
        self._path = path

    def tell(self, head: WitnessedHead) -> None:
        try:
            with self._path.open("ab") as out:
                out.write(head.line())
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise WitnessUnavailable(f"{self.name} cannot be written ({error.strerror}); see to its file") from error

    def heard(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise WitnessUnavailable(f"{self.name} cannot be read ({error.strerror}); see to its file") from error


class BucketWitness(Witness):
    """Another bucket, best of another account and with object lock: an object for each head, written once."""

    def __init__(self, name: str, store: ObjectStore) -> None:
        super().__init__(name)
        self._store = store

    def tell(self, head: WitnessedHead) -> None:
        self._store.create_or_same(f"{head.number:08d}-{head.sha256[:16]}.json", head.line())

    def heard(self) -> bytes:
        return b"".join(self._store.read(found.key) for found in self._store.list() if found.key.endswith(".json"))


class EndpointWitness(Witness):
    """An address that takes a line by POST, and gives back all of them by GET."""

    def __init__(self, name: str, address: SplitResult) -> None:
        super().__init__(name)
        user, _, host = address.netloc.rpartition("@")
        self._address = urlunsplit(address._replace(netloc=host))
        said = b64encode(unquote(user).encode()).decode()
        self._headers = {"Authorization": f"Basic {said}"} if user else {}

    def tell(self, head: WitnessedHead) -> None:
        self._ask(head.line())

    def heard(self) -> bytes:
        return self._ask(None)

    def _ask(self, body: bytes | None) -> bytes:
        request = urllib.request.Request(self._address, body)  # noqa: S310 - http or https, as `_witness` saw to
        for header, said in {**self._headers, "Content-Type": "application/jsonl"}.items():
            request.add_unredirected_header(header, said)  # not to wherever it sends us
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
                content: bytes = answer.read(MOST_BYTES)
                return content
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (404, 410) and body is None:
                return b""
            raise WitnessUnavailable(f"{self.name} answered {error.code}; see to its endpoint") from None
        except OSError as error:
            raise WitnessUnavailable(
                f"{self.name} did not answer ({type(error).__name__}); see to its endpoint"
            ) from None


class TimestampWitness(Witness):
    """An authority that signs when it saw a head (RFC 3161). It keeps nothing: its answers stand in the deployment's
    own store, where they may be deleted, and nobody but the authority can make one."""

    def __init__(self, name: str, address: SplitResult, roots: Path, store: ObjectStore) -> None:
        super().__init__(name)
        self._address = urlunsplit(address)
        self._roots = roots
        self._store = store
        self._own = sha256_of(str(address.hostname).encode())[:8]

    def tell(self, head: WitnessedHead) -> None:
        request = urllib.request.Request(self._address, request_for(head.line()))  # noqa: S310 - as `_witness` saw to
        request.add_unredirected_header("Content-Type", QUERY)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
                token = answer.read(MOST_TOKEN)
        except OSError as error:
            raise WitnessUnavailable(
                f"{self.name} did not answer ({type(error).__name__}); see to its endpoint"
            ) from None
        stamped_at(token, head.line(), self._roots)
        document = {"format": FORMAT, "head": head.line().decode(), "token": b64encode(token).decode()}
        self._store.create_json(f"{TIMESTAMPS}{head.number:08d}-{head.sha256[:16]}-{self._own}.json", document)

    def heard(self) -> bytes:
        return b"".join(line for line, _ in self.tokens())

    def tokens(self) -> Iterator[tuple[bytes, bytes]]:
        """Each head that was stamped, as a line, and what the authority answered. Raises BadTimestamp where that is not
        of this head, or of nobody who is trusted."""
        for found in self._store.list(TIMESTAMPS):
            if found.key.endswith(f"-{self._own}.json"):
                document = self._store.read_json(found.key)
                line, token = str(document["head"]).encode(), b64decode(document["token"])
                try:
                    stamped_at(token, line, self._roots)
                except BadTimestamp as error:
                    raise BadTimestamp(f"{self._store.uri(found.key)}: {error}") from error
                yield line, token


@dataclass(frozen=True)
class Told:
    """What came of telling a witness. number: of the newest head that it has; problem: why it could not be told."""

    witness: str
    number: int | None
    at: str | None
    problem: str | None = None

    def __str__(self) -> str:
        has = f"has link {self.number} of {self.at}" if self.number else "has no head"
        return f"{self.witness}: {self.problem or has}"

    def shown(self) -> dict[str, str | int]:
        """As a row of a table."""
        return {"witness": self.witness, "link": self.number or "", "of": self.at or "", "problem": self.problem or ""}


def witnesses(settings: Settings, store: ObjectStore) -> list[Witness]:
    """The witnesses that the settings name. store: the deployment's. Raises BadWitness, StoreNotUsable."""
    given = settings.witnesses.get_secret_value() if settings.witnesses else ""
    return [_witness(number, one, store) for number, one in enumerate(given.replace(",", " ").split(), 1)]


def tell_witnesses(
    head: Head, store: ObjectStore, settings: Settings, now: datetime, *, at_once: bool = False
) -> list[Told]:
    """Tell every witness of the head whose last one is older than EVERY, or at once; what came of it. Raises BadWitness
    where the setting names none that could be one."""
    current = WitnessedHead(store.uri(""), head.number, head.sha256, head.at)
    return [_told(one, current, now, at_once=at_once) for one in witnesses(settings, store)]


def _told(witness: Witness, head: WitnessedHead, now: datetime, *, at_once: bool) -> Told:
    try:
        known = witness.heads(head.deployment)
        last = known[-1] if known else None
        due = last is None or at_once or now - datetime.fromisoformat(last.at) >= EVERY
        if due and head not in known:
            witness.tell(head)
            last = head
    except CryptoMLError as error:
        return Told(witness.name, None, None, str(error))
    return Told(witness.name, last.number if last else None, last.at if last else None)


def is_witnessed(told: Sequence[Told]) -> Verdict:
    """Whether every witness knows of the chain, as a check has it."""
    wrong = [one for one in told if one.problem]
    numbers: dict[str, float | None] = {"witnesses": len(told), "not_told": len(wrong)}
    if not told:
        return Verdict(
            True, numbers, 0, "no witness is set (CRYPTO_ML_WITNESSES): a chain made anew as a whole stays unseen"
        )
    return Verdict(not wrong, numbers, 0, "; ".join(map(str, wrong or told)))


def _witness(number: int, given: str, store: ObjectStore) -> Witness:
    name = f"witness {number}"
    try:
        address = urlsplit(given)
        asked = {key: values[0] for key, values in parse_qs(address.query).items()}
    except ValueError:
        raise BadWitness(f"{name} of CRYPTO_ML_WITNESSES is no address") from None
    name = f"{name} ({address.scheme})"
    if address.scheme == "file" and not address.netloc and address.path:
        return FileWitness(name, Path(unquote(address.path)))
    if address.scheme == "s3" and address.netloc:
        place = connect_elsewhere(
            address.netloc,
            address.path,
            profile=asked.get("profile"),
            endpoint=asked.get("endpoint"),
            region=asked.get("region"),
        )
        return BucketWitness(name, place)
    if address.scheme in ("http", "https") and address.hostname:
        return EndpointWitness(name, address)
    if address.scheme in ("rfc3161+http", "rfc3161+https") and address.hostname and "ca" in asked:
        require_timestamps(name)
        asking = address._replace(scheme=address.scheme.removeprefix("rfc3161+"), query="")
        return TimestampWitness(name, asking, Path(asked["ca"]), store)
    raise BadWitness(
        f"witness {number} of CRYPTO_ML_WITNESSES is none: give file:///path, s3://bucket/prefix, "
        "https://host/path, or rfc3161+https://host/path?ca=/path/to/ca.pem"
    )

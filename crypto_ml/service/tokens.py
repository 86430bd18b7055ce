"""Who may ask: bearer tokens, of which only hashes are kept, each with a name and rights.

A line for each: `NAME RIGHTS SHA256`, such as `charts predict,read 3f79…`; empty lines and what follows a `#` count for
nothing. A token is 256 random bits, so its plain sha256 tells nothing about it and needs no salt.
"""

import hmac
import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, get_args

from crypto_ml.errors import Refused
from crypto_ml.visible import visible

Right = Literal["predict", "read"]
RIGHTS: Final[tuple[Right, ...]] = get_args(Right)
BEGINNING: Final = "cml_"
"""Of every token, so that whoever finds one in a log or a repository knows what it is."""

OWN_NAMES: Final = ("127.0.0.1", "localhost", "::1")
"""By which a machine is asked by itself. A page in a browser may ask it under a name of the page's own, which leads
here; where nobody needs a token, such a page would be answered."""

HOST: Final = re.compile(r"(?P<name>\[[0-9a-fA-F:.]*\]|[^\[\]:@]*)(?::[0-9]*)?", re.ASCII)
NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class BadTokens(Refused):
    """Lines that name nobody who may ask."""


@dataclass(frozen=True)
class Caller:
    """Who asks, and what they may."""

    name: str
    rights: frozenset[Right]


ANYBODY: Final = Caller("anybody", frozenset(RIGHTS))
"""Whoever asks where there are no tokens, which is on loopback alone."""


@dataclass(frozen=True)
class Tokens:
    """The tokens that are known, by their hashes; none at all lets anybody in."""

    callers: Sequence[tuple[bytes, Caller]] = field(default=(), repr=False)

    @classmethod
    def read(cls, text: str, file: Path | None = None) -> "Tokens":
        """Those of a text (lines, or parts between semicolons) and of a file. Raises BadTokens, also where a file is
        named and nobody is: it may just be written, and who named it does not mean to let anybody in."""
        lines = [("CRYPTO_ML_SERVE_TOKENS", line) for line in re.split(r"[;\n]", text)]
        if file is not None:
            try:
                lines += [(str(file), line) for line in file.read_text(encoding="utf-8-sig").splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                raise BadTokens(
                    f"the tokens in {file} cannot be read ({error}); see CRYPTO_ML_SERVE_TOKENS_FILE"
                ) from error
        said = [(where, line.partition("#")[0].split()) for where, line in lines]
        callers = tuple(_caller(where, parts) for where, parts in said if parts)
        if file is not None and not callers:
            raise BadTokens(
                f"{file} names nobody who may ask: write a line of `crypto-ml serve --new-token NAME` into it, or "
                "unset CRYPTO_ML_SERVE_TOKENS_FILE"
            )
        return cls(callers)

    def caller(self, token: str | None) -> Caller | None:
        """Whose token it is; None where nobody's. Takes as long for every token."""
        if not self.callers:
            return ANYBODY
        asked = sha256((token or "").encode("utf-8", "surrogateescape")).digest()
        found = None
        for digest, caller in self.callers:
            if hmac.compare_digest(digest, asked):
                found = caller
        return found

    def __bool__(self) -> bool:
        return bool(self.callers)


def is_own_name(host: str) -> bool:
    """Whether a Host header, with a port or without, has one of OWN_NAMES."""
    asked = HOST.fullmatch(host)
    return asked is not None and asked["name"].strip("[]").lower() in OWN_NAMES


def is_loopback(host: str) -> bool:
    """Whether an address, or `localhost`, is reached by this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_token(name: str, rights: Sequence[str]) -> tuple[str, str]:
    """A new token, and the line by which it will be known. Raises BadTokens."""
    token = BEGINNING + secrets.token_urlsafe(32)
    line = f"{name} {','.join(rights)} {sha256(token.encode()).hexdigest()}"
    _caller("--new-token", line.split())
    return token, line


def _caller(where: str, parts: Sequence[str]) -> tuple[bytes, Caller]:
    if len(parts) != 3:
        raise BadTokens(f"{where} has a line of {len(parts)} words: write NAME RIGHTS SHA256, as --new-token prints it")
    name, rights, digest = parts
    if not NAME.fullmatch(name):
        raise BadTokens(f"{where}: {visible(name)!r} names nobody: use letters, digits and . _ @ -, 64 at most")
    known = [right for right in RIGHTS if right in rights.split(",")]
    if not known or set(rights.split(",")) - set(RIGHTS):
        raise BadTokens(
            f"{where}: {name} has {visible(rights)!r}; rights are {' or '.join(RIGHTS)}, or both with a comma"
        )
    if not DIGEST.fullmatch(digest):  # it may be the token itself, so it is not repeated
        raise BadTokens(f"{where}: what {name} is known by is no sha256 in hex; let --new-token write the line")
    return bytes.fromhex(digest), Caller(name, frozenset(known))

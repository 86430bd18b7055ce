"""Messages to people: Slack and the like, email, PagerDuty, any HTTP endpoint, through the library apprise.

Addresses hold secrets. They come from the settings, go to the library, and nowhere else: a destination is called by its
kind and number (`slack 1`), and while something is sent the loggers of the libraries that know the address are silent.
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from apprise import Apprise

log: Final = logging.getLogger(__name__)

PAUSES: Final = (1.0, 5.0, 20.0)
"""Seconds before a message is tried again; after the last, the next look tries it."""

LONGEST: Final = 30.0
"""Seconds that one try may take: who answers a byte at a time never runs into the timeouts of the library."""

KNOWS_ADDRESSES: Final = (
    "apprise",
    "requests",
    "requests_oauthlib",
    "urllib3",
    "smtplib",
    "paho",
    "slixmpp",
    "markdown",
)
BELOW: Final = tuple(f"{name}." for name in KNOWS_ADDRESSES)
LONGEST_KIND: Final = 20
Kind = Literal["warning", "failure", "success"]


def addresses(given: str) -> list[str]:
    """The addresses that the setting names."""
    return given.split()


def destinations(given: Sequence[str]) -> list[str]:
    """What addresses are called: their kind, and which of that kind it is."""
    counted: Counter[str] = Counter()
    found = []
    for one in given:
        before, separator, _ = one.partition("://")
        is_kind = bool(separator) and len(before) <= LONGEST_KIND and before.isascii() and before.isalnum()
        kind = before.lower() if is_kind else "unreadable"
        counted[kind] += 1
        found.append(f"{kind} {counted[kind]}")
    return found


def unreadable(given: Sequence[str]) -> list[str]:
    """Which destinations are none that the library knows."""
    from apprise import Apprise

    with _silence:
        return [name for name, one in zip(destinations(given), given, strict=True) if Apprise.instantiate(one) is None]


def send(
    address: str,
    title: str,
    text: str,
    kind: Kind,
    *,
    called: str,
    pauses: Sequence[float] = PAUSES,
    longest: float = LONGEST,
) -> bool:
    """Send one message, and try again after each pause; True once it was taken. Never raises, and never says where to.

    called: what the destination is called (see `destinations`). longest: seconds that a try may take.
    """
    from apprise import Apprise, AppriseAsset, PersistentStoreMode

    asset = AppriseAsset(
        app_id="crypto_ml",
        app_desc="crypto_ml",
        app_url="",
        storage_mode=PersistentStoreMode.MEMORY,
        secure_logging=True,
    )
    with _silence:
        sender = Apprise(asset=asset)
        if not sender.add(address):
            log.warning("an alarm could not be sent to %s: no address that apprise knows", called)
            return False
        for pause in (*pauses, None):
            if _taken(sender, title, text, kind, called=called, longest=longest):
                return True
            if pause is not None:
                time.sleep(pause)
    log.warning("an alarm could not be sent to %s, after %d tries; the next look tries again", called, len(pauses) + 1)
    return False


def _taken(sender: "Apprise", title: str, text: str, kind: Kind, *, called: str, longest: float) -> bool:
    """Whether a message was taken within some seconds; who takes longer is not waited for, and stays silent."""
    from apprise import NotifyFormat, NotifyType

    taken: list[bool] = []

    def notify() -> None:
        with _silence:
            try:
                taken.append(
                    bool(
                        sender.notify(
                            body=text, title=title, notify_type=NotifyType(kind), body_format=NotifyFormat.TEXT
                        )
                    )
                )
            except Exception as error:  # noqa: BLE001 - whatever a plug-in raises may have the address in it
                log.warning("sending to %s failed: %s", called, type(error).__name__)

    thread = Thread(target=notify, daemon=True)
    thread.start()
    thread.join(longest)
    if thread.is_alive():
        log.warning("sending to %s took longer than %g s", called, longest)
    return taken == [True]


class _Silence:
    """Nothing is logged by who knows an address, as long as somebody sends: also not by loggers that come about
    meanwhile, which ask those above them for their level. Several threads may send at once."""

    def __init__(self) -> None:
        self._changing = Lock()
        self._senders = 0
        self._levels: dict[logging.Logger, int] = {}
        self._disabled: dict[logging.Logger, bool] = {}

    def __enter__(self) -> None:
        with self._changing:
            self._senders += 1
            if self._senders == 1:
                self._begin()

    def __exit__(self, *_: object) -> None:
        with self._changing:
            self._senders -= 1
            if not self._senders:
                self._end()

    def _begin(self) -> None:
        below = [name for name in logging.root.manager.loggerDict if name.startswith(BELOW)]
        self._levels = {one: one.level for one in map(logging.getLogger, KNOWS_ADDRESSES)}
        self._disabled = {one: one.disabled for one in map(logging.getLogger, below)}
        for one in self._levels:
            one.setLevel(logging.CRITICAL + 1)
        for one in self._disabled:
            one.disabled = True

    def _end(self) -> None:
        for one, level in self._levels.items():
            one.setLevel(level)
        for one, was in self._disabled.items():
            one.disabled = was


_silence = _Silence()

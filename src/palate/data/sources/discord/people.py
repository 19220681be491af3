"""People of a channel: keyed pseudonyms instead of user ids, and those who want to be left out."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from palate.data.sources.texts import text_lines
from palate.errors import DataError
from palate.runs import write_atomic

_LENGTH: Final = 32
_MENTION: Final = re.compile(r"<@[!&]?(\d+)>")
_ID: Final = re.compile(r"(?<!\d)\d{17,20}(?!\d)")


class Pseudonyms:
    """Names people and messages by HMAC-SHA-256 under a secret key.

    The same key gives the same name, so several imports fit together; without the key nobody can go
    back from a name to a user id.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise DataError(f"the key has {len(key)} bytes, expected 16 or more")
        self._key = key

    def person(self, user: str) -> str:
        """The pseudonym of a user id, 32 hex digits."""
        return self._name("person", user, _LENGTH)

    def message(self, message: int) -> str:
        """The pseudonym of a message id, 16 hex digits."""
        return self._name("message", str(message), 16)

    def fingerprint(self) -> str:
        """What tells keys apart and does not give the key away."""
        return self._name("fingerprint", "", 16)

    def people(self, users: Iterable[str]) -> str:
        """What tells lists of user ids apart and does not give them away, 16 hex digits."""
        return self._name("people", " ".join(sorted(users)), 16)

    def without_ids(self, text: str) -> str:
        """Return a text whose mentions of people, and ids of Discord in links, carry pseudonyms."""
        text = _MENTION.sub(lambda found: f"@{self.person(found.group(1))[:8]}", text)
        return _ID.sub(lambda found: self._name("id", found.group(), 16), text)

    def _name(self, what: str, value: str, length: int) -> str:
        digest = hmac.new(self._key, f"{what}:{value}".encode(), "sha256")
        return digest.hexdigest()[:length]


def read_key(path: Path) -> bytes:
    """Read the secret key of pseudonyms; make one where there is none, readable by its owner alone."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected the file of a key")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, secrets.token_hex(32) + "\n")
        path.chmod(0o600)
    return path.read_bytes().strip()


def read_deletions(path: Path) -> frozenset[str]:
    """Read the user ids whose messages and picks are left out: one per line, `#` begins a remark.

    Raises `DataError` that names the line where it holds something else.
    """
    found = set()
    for number, line in enumerate(text_lines(path), start=1):
        user = line.partition("#")[0].strip()
        if user and not (user.isascii() and user.isdecimal()):
            raise DataError(f"{path}, line {number}: {user!r} is no Discord user id (digits)")
        if user:
            found.add(user)
    return frozenset(found)

"""Who may look: hashed passwords in a file, signed session cookies, tokens against forgery.

A session lives in its cookie, signed with a key made of the login file's secret and the user's
password hash. So a restart of the server ends nobody's session, and a new password ends that
user's at once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from hypnocast.core.budget import Budget
from hypnocast.errors import ConfigError
from hypnocast.ports.durable_files import replace_file

_SCRYPT_N = 1 << 15
_SCRYPT_R = 8
_SCRYPT_P = 1
_SCRYPT_MEMORY = 64 << 20
SHORTEST_PASSWORD: Final = 10
_LONGEST_PASSWORD: Final = 256
_MOST_VISITORS: Final = 10_000

UserName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]{32,128}$")]


class PasswordHash(Struct, frozen=True, forbid_unknown_fields=True):
    """A password as scrypt leaves it."""

    salt: Hex
    hash: Hex
    n: Annotated[int, Meta(ge=1 << 14, le=1 << 17)] = _SCRYPT_N
    r: Annotated[int, Meta(ge=8, le=16)] = _SCRYPT_R
    p: Annotated[int, Meta(ge=1, le=4)] = _SCRYPT_P

    def admits(self, password: str) -> bool:
        """Return whether this is the password; needs some 0.1 s and 32 MB, by design."""
        found = _scrypt(password, bytes.fromhex(self.salt), self.n, self.r, self.p)
        return hmac.compare_digest(found, bytes.fromhex(self.hash))


class LoginFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The file of those who may look."""

    secret: Hex
    """Signs the session cookies."""
    users: dict[UserName, PasswordHash]


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody with a valid session."""

    user: str | None
    """None where no login is needed."""
    csrf: str
    """What a request that changes something must carry."""


_NOBODY = PasswordHash(salt="00" * 16, hash="00" * 32)
"""Checked for unknown users, so that their time is that of a wrong password."""


def hash_password(password: str) -> PasswordHash:
    """Return what may be kept of a password; ``ConfigError`` if it is too short or too long."""
    if not SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise ConfigError(
            f"a password needs {SHORTEST_PASSWORD} to {_LONGEST_PASSWORD} characters",
            where="password",
            remedy="Choose another.",
        )
    salt = secrets.token_bytes(16)
    found = _scrypt(password, salt, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P)
    return PasswordHash(salt=salt.hex(), hash=found.hex())


def load_logins(path: Path) -> LoginFile:
    """Read the login file; refuse it where others could read or write it."""
    where = str(path)
    try:
        if path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise ConfigError(
                "others can read or write the login file",
                where=where,
                remedy=f"Run: chmod 600 {path}",
            )
        logins = msgspec.json.decode(path.read_bytes(), type=LoginFile)
    except OSError as error:
        raise ConfigError(
            error.strerror or str(error),
            where=where,
            remedy="Make it with: hypnocast dashboard --add-user NAME.",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"not a login file: {error}",
            where=where,
            remedy="Make it anew with: hypnocast dashboard --add-user NAME.",
        ) from None
    if not logins.users:
        raise ConfigError(
            "nobody may log in", where=where, remedy="Run: hypnocast dashboard --add-user NAME."
        )
    return logins


def set_password(path: Path, user: str, password: str) -> None:
    """Add a user to the login file, or change a password; the file is made where there is none.

    A file that is there keeps its owner and mode: the daemon must still be able to read it.
    """
    try:
        msgspec.convert(user, UserName)
    except msgspec.ValidationError:
        raise ConfigError(
            f"{user!r} is no user name",
            where=str(path),
            remedy="Use letters, digits, dot, dash and underscore.",
        ) from None
    old = load_logins(path) if path.exists() else LoginFile(secrets.token_hex(32), {})
    new = LoginFile(old.secret, {**old.users, user: hash_password(password)})
    try:
        replace_file(path, msgspec.json.format(msgspec.json.encode(new)))
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}",
            where=str(path),
            remedy="Run this as the file's owner, in a folder that is there.",
        ) from None


class Gate:
    """Makes and checks sessions: for users with a password, or for whoever has the token.

    Without a login file the page is served to this host alone, and other accounts of this host are
    not to be let in. So a token opens it, which is printed for whoever started it.
    """

    def __init__(self, logins: LoginFile | None, session_s: float, token: str = "") -> None:
        """Keep who may log in, how long a session lasts, and what opens the page without logins."""
        self._logins = logins
        self._session_s = session_s
        self._token = token or secrets.token_hex(16)
        if logins is not None:
            self._secret = bytes.fromhex(logins.secret)
        else:
            self._secret = hashlib.sha256(f"cookies of {self._token}".encode()).digest()
        self._ended: dict[str, float] = {}

    @property
    def name(self) -> str:
        """What distinguishes this page from others of this host: cookies know no ports."""
        return hashlib.sha256(self._secret).hexdigest()[:8]

    @property
    def needs_login(self) -> bool:
        """Whether visitors log in; otherwise a token lets them in."""
        return self._logins is not None

    def fits(self, token: str) -> bool:
        """Return whether this is the token that opens the page."""
        fits = hmac.compare_digest(token.encode(), self._token.encode())
        return fits and not self.needs_login

    def check(self, user: str, password: str) -> bool:
        """Return whether this user has this password; slow by design, so run it in a thread."""
        users: Mapping[str, PasswordHash] = self._logins.users if self._logins else {}
        known = users.get(user)
        fits = (known or _NOBODY).admits(password[:_LONGEST_PASSWORD])
        return fits and known is not None

    def open(self, user: str | None) -> str:
        """Return the cookie of a new session."""
        words = f"{user or ''}|{time.time():.0f}|{secrets.token_hex(16)}"
        return f"{_text(words.encode())}.{_text(self._sign(user, words))}"

    def visitor(self, cookie: str | None) -> Visitor | None:
        """Return who sent this cookie, or None where it is forged, over, or ended."""
        if not cookie or len(cookie) > 512 or cookie in self._ended:
            return None
        try:
            words, mark = (_bytes(part) for part in cookie.split("."))
            name, begun, _ = words.decode().split("|")
            age = time.time() - float(begun)
        except ValueError:
            return None
        user = name or None
        if (user is not None) != self.needs_login or not 0 <= age + 60 <= self._session_s + 60:
            return None
        if self._logins is not None and name not in self._logins.users:
            return None
        if not hmac.compare_digest(self._sign(user, words.decode()), mark):
            return None
        return Visitor(user, self._sign(user, f"csrf|{cookie}").hex())

    def close(self, cookie: str) -> None:
        """End a session: its cookie is worth nothing any more."""
        now = time.time()
        self._ended = {old: at for old, at in self._ended.items() if now - at < self._session_s}
        self._ended[cookie] = now

    def _sign(self, user: str | None, words: str) -> bytes:
        key = self._secret
        if self._logins is not None and user is not None:
            key += self._logins.users[user].hash.encode()
        return hmac.digest(key, words.encode(), "sha256")


class Allowance:
    """How often each visitor may do something."""

    def __init__(self, burst: int, per_s: float) -> None:
        """Set how many at once, and how many a second after that."""
        self._burst = burst
        self._per_s = per_s
        self._budgets: dict[str, Budget] = {}

    def spend(self, who: str) -> bool:
        """Spend one; False where a visitor has none left."""
        now = time.monotonic()
        if len(self._budgets) > _MOST_VISITORS:
            budgets = self._budgets.items()
            self._budgets = {one: budget for one, budget in budgets if not budget.full(now)}
        budget = self._budgets.setdefault(who, Budget(self._burst, self._per_s))
        return budget.spend(now)

    def wait_s(self) -> int:
        """Return after how many seconds there is one again."""
        return max(1, round(1 / self._per_s))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password.encode(), salt=salt, n=n, r=r, p=p, maxmem=4 * _SCRYPT_MEMORY, dklen=32
    )


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)

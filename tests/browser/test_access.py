"""Attacks on the ward page, each tried against the real server, each refused."""

from __future__ import annotations

import errno
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from browser.serving import Served, served
from hypnocast.cli import app, run
from hypnocast.dashboard.auth import Gate, hash_password, load_logins, set_password
from hypnocast.dashboard.guard import LARGEST_BODY, LARGEST_HEAD, LONGEST_TARGET, PatientProtocol
from hypnocast.dashboard.settings import DashboardSettings
from hypnocast.errors import ConfigError
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import free_port
from support.certificates import self_signed

USER, PASSWORD = "night.shift", "correct horse battery"
NOTE = {"command": "note", "request": "r1", "session": "s", "text": "x"}


@dataclass(frozen=True)
class ServedWard:
    page: Served
    users: Path
    cert: Path

    @property
    def port(self) -> int:
        return self.page.settings.port

    @property
    def origin(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.cert))
        return httpx.Client(base_url=self.origin, verify=context, headers={"origin": self.origin})

    @contextmanager
    def visitor(self) -> Iterator[httpx.Client]:
        with self.client() as client:
            answer = client.post("/api/login", json={"user": USER, "password": PASSWORD})
            assert answer.status_code == 200
            yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("access")
    set_password(folder / "users.json", USER, PASSWORD)
    self_signed(folder)
    return folder


@pytest.fixture
def ward(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedWard]:
    """The page as it is opened to a network: TLS and a login, here on loopback."""
    monkeypatch.setattr(PatientProtocol, "head_s", 1.0)
    settings = DashboardSettings(
        broker=BrokerSettings(port=free_port()),
        port=free_port(),
        users_file=str(folder / "users.json"),
        cert_file=str(folder / "cert.pem"),
        key_file=str(folder / "key.pem"),
        patience_s=1.0,
    )
    with served(settings) as page:
        yield ServedWard(page, folder / "users.json", folder / "cert.pem")


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The page as it is by default: loopback, no TLS, no login."""
    monkeypatch.setattr(PatientProtocol, "head_s", 1.0)
    settings = DashboardSettings(
        broker=BrokerSettings(port=free_port()), port=free_port(), patience_s=1.0
    )
    with served(settings) as page:
        yield page


def raw(page: Served, words: bytes, wait_s: float = 10.0) -> bytes:
    """Send bytes as no client library would, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", page.settings.port), wait_s) as line:
        line.sendall(words)
        received = b""
        while part := line.recv(65536):
            received += part
        return received


# --- who may look ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"users_file": "u"},
        {"cert_file": "c", "key_file": "k"},
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "ward.example"])  # noqa: S104 - refused
def test_the_network_gets_nothing_without_tls_and_login(host: str, others: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="open to the network"):
        DashboardSettings(host=host, **others)  # type: ignore[arg-type] # names of the settings


def test_nothing_is_shown_without_a_login(ward: ServedWard) -> None:
    with ward.client() as stranger:
        for path in ("/api/session", "/api/ward/live", "/api/bed/1/live", "/api/bed/1/page",
                     "/api/bed/1/page/3?session=s&request=r"):  # fmt: skip
            assert stranger.get(path).status_code == 401, path
        assert stranger.post("/api/bed/1/command", json=NOTE).status_code == 401
        for path in ("/", "/bed/1"):
            answer = stranger.get(path)
            assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")


def test_the_address_that_is_printed_lets_a_browser_in_for_good(local: Served) -> None:
    with httpx.Client(base_url=local.address, headers={"origin": local.address[:-1]}) as client:
        answer = client.get(local.at("bed/1"))
        assert (answer.status_code, answer.headers["location"]) == (303, "/bed/1")
        for word in ("HttpOnly", "SameSite=strict", "Path=/"):
            assert word in answer.headers["set-cookie"]
        assert client.get("/bed/1").status_code == 200
        headers = {"x-csrf-token": client.get("/api/session").json()["csrf"]}
        answer = client.post("/api/bed/1/command", json=NOTE, headers=headers)
        assert answer.status_code == 502  # let through, to a broker that is not there
        local.stop()
        local.start()
        assert client.get("/bed/1").status_code == 200, "a restart of this page shuts nobody out"
        (cookie,) = client.cookies.items()
    with served(replace(local.settings, port=free_port(), token="f" * 32)) as other:
        for name in (cookie[0], f"hypnocast-{Gate(None, 1.0, 'f' * 32).name}"):
            answer = httpx.get(f"{other.address}api/session", cookies={name: cookie[1]})
            assert answer.status_code == 401


def test_a_login_gives_a_guarded_cookie_and_a_logout_ends_it(ward: ServedWard) -> None:
    with ward.client() as client:
        answer = client.post("/api/login", json={"user": USER, "password": PASSWORD})
        cookie = answer.headers["set-cookie"]
        for word in ("__Host-hypnocast=", "HttpOnly", "SameSite=strict", "Secure", "Path=/"):
            assert word in cookie
        assert client.get("/").status_code == 200
        stolen = dict(client.cookies)
        session = client.get("/api/session").json()
        assert session["user"] == USER
        left = client.post("/api/logout", headers={"x-csrf-token": session["csrf"]})
        assert left.status_code == 200
    with ward.client() as thief:
        thief.cookies.update(stolen)
        assert thief.get("/api/session").status_code == 401


def test_wrong_passwords_are_refused_alike_and_then_slowed_down(ward: ServedWard) -> None:
    with ward.client() as guesser:
        answers = [
            guesser.post("/api/login", json={"user": user, "password": "guess" * 3})
            for user in (USER, "nobody", USER, USER, USER)
        ]
        assert {answer.status_code for answer in answers} == {403}
        assert len({answer.text for answer in answers}) == 1
        slowed = guesser.post("/api/login", json={"user": USER, "password": PASSWORD})
        assert slowed.status_code == 429
        assert int(slowed.headers["retry-after"]) >= 1


def test_forged_and_outdated_cookies_are_worth_nothing(ward: ServedWard, folder: Path) -> None:
    with ward.visitor() as client:
        name, value = next(iter(client.cookies.items()))
    words, mark = value.split(".")
    other = Gate(load_logins(folder / "users.json"), -1.0)
    for forged in (
        f"{words[:-2]}AA.{mark}", f"{words}.{mark[:-2]}AA", f"{words}.", "", ".", "a.b.c",
        words, "x" * 600,
    ):  # fmt: skip
        with ward.client() as thief:
            thief.cookies.set(name, forged)
            assert thief.get("/api/session").status_code == 401, forged
    assert other.visitor(other.open(USER)) is None


def test_a_restart_keeps_sessions_and_a_new_password_ends_them(folder: Path) -> None:
    users = folder / "others.json"
    set_password(users, USER, PASSWORD)
    set_password(users, "second", "another password")
    cookie = Gate(load_logins(users), 60).open(USER)
    assert Gate(load_logins(users), 60).visitor(cookie) is not None
    set_password(users, "second", "yet another one")
    assert Gate(load_logins(users), 60).visitor(cookie) is not None
    set_password(users, USER, "a new password")
    assert Gate(load_logins(users), 60).visitor(cookie) is None


def test_the_login_file_holds_no_password_and_is_for_its_owner_alone(folder: Path) -> None:
    users = folder / "users.json"
    assert PASSWORD not in users.read_text()
    assert users.stat().st_mode & 0o777 == 0o600
    assert hash_password(PASSWORD).admits(PASSWORD)
    assert not hash_password(PASSWORD).admits(PASSWORD + " ")
    wide = folder / "wide.json"
    wide.write_bytes(users.read_bytes())
    wide.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_logins(wide)
    with pytest.raises(ConfigError, match="characters"):
        set_password(users, USER, "short")


def test_the_daemon_can_still_read_a_login_file_that_was_changed_for_it(tmp_path: Path) -> None:
    users = tmp_path / "users.json"
    set_password(users, USER, PASSWORD)
    users.chmod(0o640)
    group = max(os.getgroups(), default=os.getgid())
    os.chown(users, -1, group)
    set_password(users, USER, "another password")
    assert users.stat().st_mode & 0o777 == 0o640
    assert users.stat().st_gid == group
    assert [path.name for path in tmp_path.iterdir()] == ["users.json"]
    with pytest.raises(ConfigError, match="cannot be written"):
        set_password(tmp_path / "nowhere" / "users.json", USER, PASSWORD)


def test_nobody_is_asked_to_log_in_before_the_login_file_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "hypnocast.toml"
    config.write_text(f'[dashboard]\nusers_file = "{tmp_path}/users.json"\n')
    command = ["dashboard", "-c", str(config), "--add-user", USER]

    def refuse(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("hypnocast.ports.durable_files.sync_folder", refuse)
    refused = CliRunner().invoke(app, command, input=f"{PASSWORD}\n{PASSWORD}\n")
    assert isinstance(refused.exception, ConfigError)
    assert "cannot be written: Input/output error" in str(refused.exception)
    assert "may log in" not in refused.output
    monkeypatch.undo()
    assert (
        "may log in" in CliRunner().invoke(app, command, input=f"{PASSWORD}\n{PASSWORD}\n").output
    )


def test_a_certificate_that_cannot_be_read_is_reported_before_any_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "hypnocast.toml"
    files = f'cert_file = "{tmp_path}/absent.pem"\nkey_file = "{tmp_path}/absent.key"\n'
    config.write_text(f"[dashboard]\n{files}port = {free_port()}\n")
    assert run(["dashboard", "-c", str(config)]) == 2
    printed = capsys.readouterr()
    assert "absent.pem" in printed.err
    assert printed.out == ""


# --- forged requests -------------------------------------------------------------------------


def test_a_command_needs_the_token_of_its_own_session(ward: ServedWard) -> None:
    with ward.visitor() as client, ward.visitor() as other:
        theirs = other.get("/api/session").json()["csrf"]
        mine = client.get("/api/session").json()["csrf"]
        for token in ("", "0" * 64, theirs):
            answer = client.post("/api/bed/1/command", json=NOTE, headers={"x-csrf-token": token})
            assert answer.status_code == 403, token
            answer = client.post("/api/bed/1/retire", json={}, headers={"x-csrf-token": token})
            assert answer.status_code == 403, token
        good = client.post("/api/bed/1/command", json=NOTE, headers={"x-csrf-token": mine})
        assert good.status_code == 502  # let through, to a broker that is not there


def test_other_sites_can_neither_command_nor_log_in_nor_frame(local: Served) -> None:
    with httpx.Client(base_url=local.address) as client:
        client.get(local.at())
        token = client.get("/api/session").json()["csrf"]
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1", None):
            headers = {"x-csrf-token": token} | ({"origin": origin} if origin else {})
            for path in ("/api/bed/1/command", "/api/bed/1/retire", "/api/login", "/api/logout"):
                assert client.post(path, json=NOTE, headers=headers).status_code == 403
        answer = client.get("/")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "samesite=strict" in client.get(local.at()).headers["set-cookie"].lower()


def test_another_name_for_this_host_is_refused(local: Served) -> None:
    for name in ("evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:80"):
        answer = raw(
            local,
            f"GET /api/ward/live HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode(),
        )
        assert answer.startswith(b"HTTP/1.1 421"), name


def test_only_commands_of_the_contract_are_sent(local: Served) -> None:
    origin = local.address.rstrip("/")
    with httpx.Client(base_url=local.address, headers={"origin": origin}) as client:
        client.get(local.at())
        headers = {"x-csrf-token": client.get("/api/session").json()["csrf"]}
        wrong: tuple[dict[str, object], ...] = (
            {},
            {**NOTE, "extra": 1},
            {**NOTE, "text": "x" * 501},
            {**NOTE, "command": "rm"},
            {"command": "catch_up", "request": "r", "since": 0},
        )
        for body in wrong:
            answer = client.post("/api/bed/1/command", json=body, headers=headers)
            assert answer.status_code == 400, body
        plain = headers | {"content-type": "text/plain"}
        answer = client.post("/api/bed/1/command", content=b"{}", headers=plain)
        assert answer.status_code == 415
        for bed in ("a%2Fb", "+", "%23", "x" * 65, "a b"):
            answer = client.post(f"/api/bed/{bed}/command", json=NOTE, headers=headers)
            assert answer.status_code == 404, bed


def test_commands_are_rate_limited(local: Served) -> None:
    origin = local.address.rstrip("/")
    with httpx.Client(base_url=local.address, headers={"origin": origin}) as client:
        client.get(local.at())
        headers = {"x-csrf-token": client.get("/api/session").json()["csrf"]}
        values = [
            client.post("/api/bed/1/command", json=NOTE, headers=headers).status_code
            for _ in range(60)
        ]
    assert values[:20] == [502] * 20
    assert 429 in values


# --- paths, sizes, times -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py",
        "/static/..%5cserver.py", "/static//etc/passwd", "/static/%2fetc/passwd",
        "/static/....//server.py", "/static/vendor/../../auth.py", "/../../etc/passwd",
        "/static/%00", "/bed/..%2f..%2fetc",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_pages(local: Served, path: str) -> None:
    answer = raw(
        local, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    assert answer.split()[1] in (b"404", b"400"), answer[:200]
    assert b"import" not in answer
    assert b"root:" not in answer


def test_oversized_requests_are_refused(local: Served) -> None:
    head = b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
    kind = b"Content-Type: application/json\r\n"
    received = raw(local, head + kind + b"Content-Length: %d\r\n\r\n" % (LARGEST_BODY + 1))
    assert received.startswith(b"HTTP/1.1 413")
    chunk = b"%x\r\n%s\r\n" % (LARGEST_BODY + 1, b"x" * (LARGEST_BODY + 1))
    received = raw(
        local, head + kind + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
    )
    assert received.startswith(b"HTTP/1.1 413")
    received = raw(local, b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" * LONGEST_TARGET))
    assert received.startswith(b"HTTP/1.1 414")
    received = raw(local, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s" % (b"a" * LARGEST_HEAD))
    assert received.startswith(b"HTTP/1.1 400")


def test_slow_requests_are_cut_off_while_others_are_served(local: Served) -> None:
    begun = time.monotonic()
    slow = [socket.create_connection(("127.0.0.1", local.settings.port), 10) for _ in range(20)]
    for line in slow:
        line.sendall(b"GET / HTTP/1.1\r\nHost: loc")
    with httpx.Client(base_url=local.address) as client:
        assert client.get("/login").status_code == 200
    for line in slow:
        assert line.recv(100) == b""
        line.close()
    body = (
        b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
        b'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"user"'
    )
    assert raw(local, body).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - begun < 15


def test_a_connection_kept_alive_may_not_dawdle_either(local: Served) -> None:
    with socket.create_connection(("127.0.0.1", local.settings.port), 10) as line:
        line.sendall(b"GET /static/theme.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while b"})();" not in received:
            received += line.recv(65536)
        line.sendall(b"GET / HTTP/1.1\r\nHos")
        assert line.recv(100) == b""


def test_the_command_line_serves_the_page_and_writes_the_login_file(tmp_path: Path) -> None:
    config = tmp_path / "hypnocast.toml"
    config.write_text(f'[dashboard]\nusers_file = "{tmp_path}/users.json"\n')
    runner = CliRunner()
    words = [PASSWORD, PASSWORD]
    outcome = runner.invoke(
        app, ["dashboard", "-c", str(config), "--add-user", USER], input="\n".join(words) + "\n"
    )
    assert outcome.exit_code == 0, outcome.output
    assert PASSWORD not in outcome.output
    assert list(load_logins(tmp_path / "users.json").users) == [USER]
    wrong = runner.invoke(app, ["dashboard", "--broker", "host:x"])
    assert isinstance(wrong.exception, ConfigError)
    line = [sys.executable, "-c", "from hypnocast.cli import main; main()", "dashboard"]
    line += ["--broker", f"127.0.0.1:{free_port()}", "--site", "demo", "--port", "0"]
    page = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert page.stdout is not None
    address = page.stdout.readline().removeprefix("Ward page: ").strip()
    assert "token=" in address
    assert httpx.get(address, follow_redirects=True).url.path == "/"
    page.send_signal(signal.SIGINT)
    assert page.wait(20) == 130
    page.stdout.close()

"""The ward page under attack, over TLS and without, by the real server: others are still served."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from attacks.calm_bed import AttackedDaemon
from browser.serving import Served, served, until
from hypnocast.dashboard import door
from hypnocast.dashboard.auth import set_password
from hypnocast.dashboard.door import MOST_FROM_ONE, MOST_HALF_OPEN, address_of
from hypnocast.dashboard.guard import LARGEST_BODY, LARGEST_HEAD
from hypnocast.dashboard.settings import DashboardSettings
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import free_port
from support.certificates import self_signed

pytestmark = pytest.mark.usefixtures("calm_bed")

USER, PASSWORD = "night.shift", "correct horse battery"
ELSEWHERE = "127.0.0.2"
"""Another address, from which the page can be reached too."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    set_password(folder / "users.json", USER, PASSWORD)
    self_signed(folder)
    return folder


@pytest.fixture
def page(folder: Path) -> Iterator[Served]:
    """The page as it is opened to a network: TLS and a login."""
    settings = DashboardSettings(
        broker=BrokerSettings(port=free_port()),
        port=free_port(),
        users_file=str(folder / "users.json"),
        cert_file=str(folder / "cert.pem"),
        key_file=str(folder / "key.pem"),
        patience_s=1.0,
    )
    with served(settings) as page:
        yield page


@pytest.fixture
def local(calm_bed: AttackedDaemon | None) -> Iterator[int]:
    """The port of the page as it is by default, on loopback, without TLS and login.

    In the long form it is the page of a whole daemon.
    """
    if calm_bed is not None:
        yield calm_bed.page
        return
    settings = DashboardSettings(broker=BrokerSettings(port=free_port()), port=free_port())
    with served(settings):
        yield settings.port


@contextmanager
def visitor(page: Served, folder: Path, address: str = ELSEWHERE) -> Iterator[httpx.Client]:
    """Somebody honest, from another address."""
    origin = f"https://localhost:{page.settings.port}"
    context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    transport = httpx.HTTPTransport(verify=context, local_address=address)
    with httpx.Client(base_url=origin, transport=transport, headers={"origin": origin}) as client:
        yield client


def logs_in(page: Served, folder: Path, address: str = ELSEWHERE) -> int:
    with visitor(page, folder, address) as client:
        return client.post("/api/login", json={"user": USER, "password": PASSWORD}).status_code


def lines(page: Served, count: int, stack: ExitStack, *, sent: bytes = b"") -> list[socket.socket]:
    """Open connections and sent little or nothing."""
    opened = []
    for _ in range(count):
        line = stack.enter_context(socket.socket())
        line.settimeout(10.0)
        line.connect(("127.0.0.1", page.settings.port))
        if sent:
            line.sendall(sent)
        opened.append(line)
    return opened


def is_open(line: socket.socket) -> bool:
    """Return whether the other end still holds a connection."""
    line.setblocking(False)
    try:
        return line.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@pytest.mark.attack("page: connections")
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_nine_hundred_half_open_connections_shut_nobody_out(
    page: Served, folder: Path, sent: bytes
) -> None:
    with ExitStack() as stack:
        opened = lines(page, 900, stack)
        until(lambda: sum(map(is_open, opened)) <= MOST_HALF_OPEN, "those too many are closed")
        for line in opened:
            if sent:
                try:
                    line.setblocking(True)
                    line.sendall(sent)
                except OSError:
                    continue
        assert logs_in(page, folder) == 200


@pytest.mark.attack("page: connections")
def test_an_idle_connection_is_closed(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HALF_OPEN_S", 0.5)
    with ExitStack() as stack:
        opened = lines(page, 10, stack)
        until(lambda: not any(map(is_open, opened)), "they are closed")


@pytest.mark.attack("page: connections")
@pytest.mark.parametrize("behaviour", ["silent", "slow head", "kept alive"])
def test_idle_connections_without_tls_take_no_more_than_their_share(
    local: int, behaviour: str
) -> None:
    sent = {"silent": b"", "slow head": b"GET / HTTP/1.1\r\nX: ", "kept alive":
           b"GET /api/session HTTP/1.1\r\nHost: localhost\r\n\r\n"}[behaviour]  # fmt: skip
    with ExitStack() as stack:
        opened = []
        for _ in range(300):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", local)))
            try:
                line.sendall(sent)
            except OSError:
                continue
            opened.append(line)
        transport = httpx.HTTPTransport(local_address=ELSEWHERE)
        with httpx.Client(transport=transport) as client:
            answer = client.get(f"http://localhost:{local}/login")
        assert answer.status_code == 200
        time.sleep(0.2)
        assert sum(map(is_open, opened)) <= MOST_FROM_ONE + MOST_HALF_OPEN


@pytest.mark.attack("page: another account")
def test_without_logins_another_account_of_this_host_gets_nothing(local: int) -> None:
    with httpx.Client(
        base_url=f"http://localhost:{local}", headers={"origin": f"http://localhost:{local}"}
    ) as stranger:
        for wrong in ("", "?token=", "?token=0", "?token=" + "0" * 32, "?token=%00%ff"):
            for path in ("", "bed/1"):
                answer = stranger.get(f"/{path}{wrong}")
                assert answer.headers["location"] == f"/login?next=/{path}", wrong
        assert not stranger.cookies
        assert "Open this page by the whole address" in stranger.get("/login").text
        for path in ("/api/session", "/api/ward/live", "/api/bed/1/live", "/api/bed/1/page",
                     "/api/bed/1/page/3?session=s&request=r"):  # fmt: skip
            assert stranger.get(path).status_code == 401, path
        assert stranger.post("/api/bed/1/command", json={}).status_code == 401


@pytest.mark.attack("page: login")
def test_guessing_a_password_locks_the_guesser_out_and_nobody_else(
    page: Served, folder: Path
) -> None:
    with visitor(page, folder, "127.0.0.3") as guesser:
        values = [
            guesser.post(
                "/api/login", json={"user": USER, "password": f"wrong wrong {n}"}
            ).status_code
            for n in range(8)
        ]
    assert values.count(403) == 5
    assert values[-1] == 429
    assert logs_in(page, folder) == 200


@pytest.mark.attack("page: login")
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("10.0.0.1", "10.0.0.2", False),
    ],
)
def test_who_may_choose_among_addresses_is_counted_once(one: str, other: str, same: bool) -> None:
    assert (address_of(one) == address_of(other)) is same


@pytest.mark.attack("page: login")
def test_a_live_stream_ends_with_the_session(page: Served, folder: Path) -> None:
    with visitor(page, folder) as client:
        assert client.post("/api/login", json={"user": USER, "password": PASSWORD}).is_success
        token = client.get("/api/session").json()["csrf"]
        with client.stream("GET", "/api/ward/live", timeout=20.0) as live:
            words = live.iter_text()
            next(words)
            left = client.post("/api/logout", headers={"x-csrf-token": token})
            assert left.is_success
            for _ in words:  # ends, or the time-out of the client ends the test
                pass


@pytest.mark.attack("page: login")
@pytest.mark.parametrize(
    "target",
    ["//evil.example", "/\\evil.example", "/\t/evil.example", "/\n/evil.example", "https://evil.example",
     "/bed/../../evil", "/bed/1/../x", "javascript:alert(1)", "/%09/evil.example", "", " /"],
)  # fmt: skip
def test_no_login_leads_away(target: str) -> None:
    script = (files("hypnocast.dashboard") / "static" / "login.js").read_text()
    found = re.search(r"location\.assign\(/(.+)/\.test\(next\)", script)
    assert found is not None
    allowed = re.compile(found[1].replace("\\/", "/"))
    assert allowed.search(target) is None
    assert allowed.search("/")
    assert allowed.search("/bed/bed-1")


RAW = {
    "a path that climbs": b"GET /static/../auth.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path that climbs, written otherwise": (
        b"GET /static/%2e%2e/auth.py HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ),
    "a path that climbs by backslashes": (
        b"GET /static/..%5cauth.py HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ),
    "a path that climbs twice": (
        b"GET /static/....//....//etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ),
    "a path with a zero": b"GET /static/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another host's name": b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a host that begins like this one": b"GET / HTTP/1.1\r\nHost: 127.evil.example\r\n\r\n",
    "no host": b"GET / HTTP/1.0\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "a long address": b"GET /" + b"a" * 4000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long head": b"GET / HTTP/1.1\r\nX: " + b"a" * (2 * LARGEST_HEAD) + b"\r\n\r\n",
    "a long body": (
        b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
        + str(2 * LARGEST_BODY).encode() + b"\r\n\r\n"
    ),
    "a length that is none": (
        b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"
    ),
    "two lengths": (
        b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Content-Length: 2\r\n\r\nab"
    ),
    "a length and chunks": (
        b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "no HTTP": b"\x00\x01\x02\x03\r\n\r\n",
    "a command from nowhere": (
        b"POST /api/bed/1/command HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "a command from elsewhere": (
        b"POST /api/bed/1/command HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    ),
    "a page of a billion": (
        b"GET /api/bed/1/page/9999999999?session=s&request=r HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ),
    "a page before the first": (
        b"GET /api/bed/1/page/-1?session=s&request=r HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ),
    "a bed that is none": b"GET /bed/%2b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a method that is none": b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an upgrade": (
        b"GET /api/ward/live/x HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\n\r\n"
    ),
}  # fmt: skip


@pytest.mark.attack("page: requests")
@pytest.mark.parametrize("what", RAW)
def test_a_request_that_no_browser_sends_is_refused_and_the_page_lives(
    local: int, what: str
) -> None:
    with socket.create_connection(("127.0.0.1", local), 10.0) as line:
        line.sendall(RAW[what])
        received = line.recv(65536)
    assert not received or re.match(rb"HTTP/1\.1 4\d\d", received), received[:200]
    assert httpx.get(f"http://localhost:{local}/login").status_code == 200

"""The service as it is shipped: its unit, its sandbox, its broker's access list."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faults.nursery import UNIT_ENVIRONMENT
from faults.test_watchdog import listening
from faults.witness import DEADLINE_S, until
from hypnocast.config.file import load_config
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.link_states import RefusedByBroker
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import Mosquitto, running_mosquitto
from support.mqtt_lab import linked
from support.mqtt_lab import until as until_async
from support.needs import need_program
from support.nights import a_batch, a_session, an_event

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
UNIT = SYSTEMD / "hypnocast.service"
GPU = SYSTEMD / "hypnocast.service.d" / "nvidia.conf"
BRIDGE = SYSTEMD / "hypnocast-bridge@.service"
MOST_EXPOSED = 2.0


def installed(folder: Path, *, gpu: bool) -> Path:
    """Return the unit with a program that is there; only its path is another."""
    text = UNIT.read_text()
    if gpu:
        text = text.replace("\n[Install]", f"\n{GPU.read_text()}\n[Install]")
    unit = folder / "hypnocast.service"
    unit.write_text(text.replace("/opt/hypnocast/bin/hypnocast", "/bin/true"))
    return unit


@pytest.mark.parametrize("gpu", [False, True])
def test_systemd_finds_nothing_to_say_about_the_unit(tmp_path: Path, *, gpu: bool) -> None:
    analyze = need_program("systemd-analyze")
    unit = installed(tmp_path, gpu=gpu)
    checked = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize("gpu", [False, True])
def test_the_unit_is_exposed_to_little(tmp_path: Path, *, gpu: bool) -> None:
    analyze = need_program("systemd-analyze")
    unit = installed(tmp_path, gpu=gpu)
    outcome = subprocess.run(
        [analyze, "security", "--offline=true", str(unit)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    level = re.search(r"Overall exposure level for \S+ (\d+\.\d)", outcome)
    assert level is not None, outcome
    assert float(level[1]) <= MOST_EXPOSED


def test_the_unit_of_the_bridge_is_sound_and_exposed_to_little(tmp_path: Path) -> None:
    analyze = need_program("systemd-analyze")
    unit = tmp_path / "hypnocast-bridge@bed-1.service"
    unit.write_text(BRIDGE.read_text().replace("/opt/hypnocast/bin/hypnocast", "/bin/true"))
    for command in (("verify", "--man=no"), ("security", "--offline=true")):
        checked = subprocess.run(
            [analyze, *command, str(unit)], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stderr == ""
    level = re.search(r"Overall exposure level for \S+ (\d+\.\d)", checked.stdout)
    assert level is not None, checked.stdout
    assert float(level[1]) <= MOST_EXPOSED


def test_users_and_folders_are_made_as_the_unit_wants_them(tmp_path: Path) -> None:
    sysusers, tmpfiles = need_program("systemd-sysusers"), need_program("systemd-tmpfiles")
    if os.geteuid() != 0:
        pytest.skip("only root makes users, even in a folder")
    (tmp_path / "etc").mkdir()
    for program, name in ((sysusers, "hypnocast.sysusers"), (tmpfiles, "hypnocast.tmpfiles")):
        command = [program, f"--root={tmp_path}"]
        command += ["--create"] if program == tmpfiles else []
        subprocess.run([*command, str(SYSTEMD / name)], check=True, capture_output=True)
    user = next(
        line.split(":")
        for line in (tmp_path / "etc/passwd").read_text().splitlines()
        if line.startswith("hypnocast:")
    )
    assert user[6] == "/usr/sbin/nologin"
    for folder in ("var/lib/hypnocast", "var/lib/hypnocast/tapes"):
        facts = (tmp_path / folder).stat()
        assert (facts.st_uid, facts.st_mode & 0o777) == (int(user[2]), 0o700)
    credentials = (tmp_path / "etc/hypnocast/credentials").stat()
    assert (credentials.st_uid, credentials.st_mode & 0o777) == (0, 0o700)


def test_the_example_configuration_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/hypnocast.service")
    config = load_config(SYSTEMD / "hypnocast.toml")
    assert config.broker.uses_tls
    loaded = re.findall(r"^LoadCredential=([\w-]+):", UNIT.read_text(), re.MULTILINE)
    assert {config.broker.username_file, config.broker.password_file} == set(loaded)


def test_the_fault_tests_run_the_daemon_in_the_units_environment() -> None:
    lines = re.findall(r"^Environment=(.*)$", UNIT.read_text(), re.MULTILINE)
    pairs = dict(pair.split("=") for line in lines for pair in line.split())
    assert pairs == UNIT_ENVIRONMENT


# --- the broker's access list -------------------------------------------------------------------

USERS = ("bedside-1", "bedside-2", "screen-bed1", "screen-bed2", "ward", "reader")


def guarded(folder: Path) -> str:
    """Return the lines of the shipped configuration that guard, with a password for each user."""
    passwords = folder / "passwords"
    passwords.write_text("")
    passwords.chmod(0o600)
    for user in USERS:
        subprocess.run(
            [need_program("mosquitto_passwd"), "-b", str(passwords), user, f"of {user}"],
            check=True,
            capture_output=True,
        )
    acl = shutil.copy(SYSTEMD / "mosquitto" / "hypnocast.acl", folder / "acl")
    Path(acl).chmod(0o600)
    return f"password_file {passwords}\nacl_file {acl}"


def reads(broker: Mosquitto, user: str, topic: str, writer: str) -> bool:
    """Whether a user gets what another writes: asked of mosquitto's own programs."""
    token = secrets.token_hex(8)
    send = [*_client("mosquitto_pub", broker, writer), "-t", topic, "-m", token, "-r"]
    subprocess.run(send, capture_output=True, check=True, timeout=DEADLINE_S)
    # What is retained comes with the subscription or never.
    listens = [*_client("mosquitto_sub", broker, user), "-t", topic, "-C", "1", "-W", "1"]
    printed = subprocess.run(listens, capture_output=True, timeout=DEADLINE_S, check=False)
    return token.encode() in printed.stdout


def _client(program: str, broker: Mosquitto, user: str) -> list[str]:
    return [
        *(need_program(program), "-V", "5", "-q", "1", "-h", "127.0.0.1", "-p", str(broker.port)),
        *("-u", user, "-P", f"of {user}"),
    ]


def test_another_beds_credentials_neither_write_nor_read_this_beds_topics(tmp_path: Path) -> None:
    bed1, bed2 = "hypnocast/lab/bed/bed1", "hypnocast/lab/bed/bed2"
    with running_mosquitto(tmp_path, guarded(tmp_path), anonymous=False) as broker:
        assert reads(broker, "ward", f"{bed1}/stage", "bedside-1")
        assert reads(broker, "screen-bed1", f"{bed1}/night", "bedside-1")
        assert reads(broker, "bedside-1", f"{bed1}/command", "ward")
        # Neither the other daemon nor the other screen reads,
        assert not reads(broker, "bedside-2", f"{bed1}/stage", "bedside-1")
        assert not reads(broker, "screen-bed2", f"{bed1}/stage", "bedside-1")
        assert not reads(broker, "bedside-2", f"{bed1}/command", "ward")
        # nor writes, where the ward would see it,
        for user, topic in (
            ("bedside-2", f"{bed1}/events"),
            ("bedside-2", f"{bed1}/status"),
            ("bedside-2", f"{bed1}/command"),
            ("bedside-2", "hypnocast/lab/daemon/bedside-1/available"),
            ("screen-bed1", f"{bed1}/command"),
            ("reader", f"{bed1}/command"),
            ("ward", f"{bed2}/rolling"),
        ):
            assert not reads(broker, "ward", topic, user), (user, topic)
        # and nobody does without a name.
        nameless = [need_program("mosquitto_pub"), "-p", str(broker.port), "-t", "x", "-m", "x"]
        assert subprocess.run(nameless, capture_output=True, check=False).returncode != 0


def known_as_bedside_1(folder: Path, port: int) -> BrokerSettings:
    """Return how a daemon logs in that the broker knows."""
    user, secret = folder / "user", folder / "secret"
    for file, text in ((user, "bedside-1"), (secret, "of bedside-1")):
        file.write_text(text)
        file.chmod(0o600)
    return BrokerSettings(port=port, username_file=user, password_file=secret)


@pytest.mark.promise(2)
async def test_the_shipped_list_lets_a_daemon_do_all_it_does(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path, guarded(tmp_path), anonymous=False) as broker:
        settings = known_as_bedside_1(tmp_path, broker.port)
        async with Journal.open(tmp_path / "state" / "journal.sqlite") as journal:
            await journal.commit(a_batch(session=a_session()))
            async with linked(settings, journal) as link:
                committed = await journal.commit(a_batch(an_event(0)))
                link.stage(committed.stored[0])
                await until_async(lambda: journal.sent == 1, "acknowledged")
                # The tests' node is called node1, for which this user may not publish.
                assert [line.partition(":")[0] for line in link.problems] == [
                    "hypnocast/lab/daemon/node1/available"
                ]


@pytest.mark.promise(2)
async def test_a_wrong_password_in_mid_night_holds_events_until_it_is_right_again(
    tmp_path: Path,
) -> None:
    with running_mosquitto(tmp_path, guarded(tmp_path), anonymous=False) as broker:
        settings = known_as_bedside_1(tmp_path, broker.port)
        async with Journal.open(tmp_path / "state" / "journal.sqlite") as journal:
            await journal.commit(a_batch(session=a_session()))
            async with linked(settings, journal) as link:
                await journal.commit(a_batch(an_event(0)))
                await until_async(lambda: journal.sent == 1, "acknowledged")
                assert settings.password_file is not None
                settings.password_file.write_text("another")
                await asyncio.to_thread(broker.restart)
                await until_async(lambda: isinstance(link.state, RefusedByBroker), "refused")
                assert isinstance(link.state, RefusedByBroker)
                assert "another" not in link.state.why
                await journal.commit(a_batch(an_event(1)))
                assert journal.sent == 1
                settings.password_file.write_text("of bedside-1")
                await until_async(lambda: journal.sent == 2, "sent after all")


# --- the sandbox --------------------------------------------------------------------------------


NO_RIGHTS = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")


def without_rights() -> tuple[int, list[str]]:
    """Return a user that can run this Python, and a command that runs another as that user.

    Where this Python lies in root's home, it is root without a single capability.
    """
    setpriv = need_program("setpriv")
    other = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", *NO_RIGHTS]
    trial = subprocess.run(
        [*other, "sh", "-c", f"{sys.executable} -c ''"], capture_output=True, check=False
    )
    return (65534, other) if trial.returncode == 0 else (0, [setpriv, *NO_RIGHTS])


def test_the_daemon_starts_and_beats_in_a_sandbox_like_the_units(
    tmp_path: Path, pack: Path
) -> None:
    """As far as it can be reproduced without a running systemd.

    Another user without a capability or new privileges; everything read-only but the state
    folder; credentials in their own folder; the unit's limits and umask. What this leaves out:
    the filter of system calls, devices, address ranges, and what hides /proc and /home.
    """
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    who, as_them = without_rights()
    state, credentials = tmp_path / "state", tmp_path / "credentials"
    for folder in (state, credentials):
        folder.mkdir(mode=0o700)
        os.chown(folder, who, who)
    for folder in (tmp_path, *tmp_path.parents[:-2], *pack.parents[:-2], pack):
        folder.chmod(folder.stat().st_mode | 0o055)
    config = tmp_path / "hypnocast.toml"
    with running_mosquitto(tmp_path) as broker, listening(tmp_path) as manager:
        Path(manager.path).chmod(0o666)
        config.write_text(
            f'[broker]\nport = {broker.port}\n[pack]\nname = "{pack}"\n'
            '[lsl]\nscope = "machine"\n[[bed]]\nid = "bed1"\n'
            'streams = [{ source_id = "nobody" }]\n'
        )
        disk = 'mount --bind "$1" "$1" && mount -o remount,bind,ro /'
        script = f'{disk} && umask 077 && shift && exec "$@"'
        command = [
            *(need_program("unshare"), "--mount", "sh", "-c", script, "sh", str(state)),
            *as_them,
            *(need_program("prlimit"), "--nofile=4096", "--core=0"),
            *(sys.executable, "-m", "hypnocast", "run", "--config", str(config)),
        ]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "STATE_DIRECTORY": str(state),
            "CREDENTIALS_DIRECTORY": str(credentials),
            "NOTIFY_SOCKET": str(manager.path),
            "WATCHDOG_USEC": "2000000",
            "OMP_NUM_THREADS": "1",
        }
        log = tmp_path / "log"
        with log.open("wb") as sink:
            daemon = subprocess.Popen(command, env=environment, stderr=sink)
        try:
            until(
                lambda: daemon.poll() is not None or len(manager.times("WATCHDOG=1")) > 3,
                "the heart beats",
            )
            assert daemon.poll() is None, log.read_text()[-2000:]
            assert len(manager.times("READY=1")) == 1
            facts = (state / "journal.sqlite").stat()
            assert (facts.st_uid, facts.st_mode & 0o777) == (who, 0o600)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(DEADLINE_S)
        assert daemon.returncode == 0, log.read_text()[-2000:]
        assert manager.times("STOPPING=1")

"""What is printed where liblsl is missing, and how its settings are written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hypnocast.errors import ConfigError
from hypnocast.ports.lsl.library import LslNetwork, configure_lsl


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_liblsl_one_line_says_what_to_do(tmp_path: Path) -> None:
    broken = tmp_path / "liblsl.so"
    broken.write_text("no library")
    code = (
        "from hypnocast.errors import InstallError\n"
        "from hypnocast.ports.lsl.source import LslSource\n"
        "try:\n    LslSource()\nexcept InstallError as error:\n    print(error)\n"
    )
    printed = run(code, PYLSL_LIB=str(broken))
    assert printed.returncode == 0, printed.stderr
    assert len(printed.stdout.splitlines()) == 1
    for word in ("liblsl", "PYLSL_LIB", "mne-lsl"):
        assert word in printed.stdout


def test_settings_reach_liblsl_before_its_first_use() -> None:
    code = (
        "from hypnocast.ports.lsl.library import *\n"
        "network = LslNetwork(base_port=31000, port_range=40, scope='machine', ipv6=False)\n"
        "configure_lsl(network)\n"
        "configure_lsl(network)\n"
        "pylsl = load_pylsl()\n"
        "outlet = pylsl.StreamOutlet(pylsl.StreamInfo('x', 'EEG', 1, 1.0, 'float32', 'x'))\n"
        "import re\n"
        "print(re.search('v4data_port>(.*?)<', outlet.get_info().as_xml())[1])\n"
        "configure_lsl(LslNetwork(base_port=32000))\n"
    )
    printed = run(code)
    assert 31000 <= int(printed.stdout) < 31040
    assert "already configured otherwise" in printed.stderr


def test_settings_that_are_not_given_leave_liblsls_own_in_force() -> None:
    assert LslNetwork().content() == ""
    content = LslNetwork(peers=("10.0.0.1", "amp-2"), session_id="lab").content()
    assert "KnownPeers = {10.0.0.1, amp-2}" in content
    assert "SessionID = lab" in content
    assert "[ports]" not in content


def test_what_the_hosts_own_file_says_is_kept_where_the_configuration_is_silent() -> None:
    own = (
        "; of the lab\n[lab]\nSessionID = sleep\nKnownPeers = {10.0.0.9}\n[ports]\nIPv6 = disable\n"
    )
    content = LslNetwork(peers=("10.0.0.1",)).content(own)
    assert "SessionID = sleep" in content
    assert "KnownPeers = {10.0.0.1}" in content
    assert "10.0.0.9" not in content
    assert "IPv6 = disable" in content
    assert "SessionID = mine" in LslNetwork(session_id="mine").content(own)
    with pytest.raises(ConfigError, match="cannot be read"):
        LslNetwork(session_id="mine").content("no section\n")


def test_a_peer_in_the_configuration_leaves_the_session_id_of_the_file_in_force(
    tmp_path: Path,
) -> None:
    own = tmp_path / "lsl_api.cfg"
    own.write_text("[lab]\nSessionID = sleep\n")
    code = (
        "from hypnocast.ports.lsl.library import *\n"
        "configure_lsl(LslNetwork(peers=('127.0.0.1',)))\n"
        "pylsl = load_pylsl()\n"
        "outlet = pylsl.StreamOutlet(pylsl.StreamInfo('x', 'EEG', 1, 1.0, 'float32', 'x'))\n"
        "print(outlet.get_info().session_id())\n"
    )
    printed = run(code, LSLAPICFG=str(own))
    assert printed.stdout.strip() == "sleep", printed.stderr


@pytest.mark.parametrize("peer", ["", "a, b", "x}\n[ports]\nBasePort = 1"])
def test_a_peer_that_is_no_host_name_is_refused(peer: str) -> None:
    with pytest.raises(ConfigError, match="neither a host"):
        configure_lsl(LslNetwork(peers=(peer,)))

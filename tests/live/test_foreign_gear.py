"""`streams --toml > hypnocast.toml` and `run` stage gear of other makers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.brokers import running_mosquitto
from support.daemons import command, daemon
from support.lsl_lab import sending
from support.mqtt_lab import Listener

MONTAGES = {
    "muse-7f2c": {"F4-M1": "AF8-TP9"},
    "obci-eeg1": {"F4-M1": "F4-M1", "C4-M1": "C3-M2 (mirrored)"},
    "openbci": {"C4-M1": "C4 (reference assumed)", "O2-M1": "O2 (reference assumed)"},
    "headbox": {
        "F4-M1": "F4-M1", "C4-M1": "C4-M1", "O2-M1": "O2-M1", "E1-M2": "E1-M2",
        "E2-M2": "E2-M2", "Chin": "Chin1-Chin2",
    },
}  # fmt: skip


@pytest.mark.timeout(300)
def test_what_streams_writes_is_staged_with_no_more_editing_than_the_electrodes_nobody_names(
    tmp_path: Path,
) -> None:
    with sending("support.foreign_gear"):
        written = command("streams", "--toml")
        assert written.returncode == 0, written.stderr
        blank = ", ".join(f'"channel {number}"' for number in range(1, 9))
        assert written.stdout.count(blank) == 1
        known = '"F4-M1", "C3-M2", "", "", "", "", "", ""'
        text = written.stdout.replace(blank, known)
        with running_mosquitto(tmp_path) as broker:
            where = (
                f'[broker]\nport = {broker.port}\n[daemon]\nstate_dir = "{tmp_path / "state"}"\n'
            )
            config = tmp_path / "hypnocast.toml"
            config.write_text(f"{where}\n{text}")
            listener = Listener(broker.port)
            try:
                events = _first_events(listener, tmp_path, config)
                states = {
                    bed: listener.json_of(f"hypnocast/lab/bed/{bed}/status") for bed in events
                }
            finally:
                listener.close()
    for gear, montage in MONTAGES.items():
        (bed,) = [bed for bed in events if bed.endswith(gear)]
        event, status = events[bed], states[bed][-1]
        chosen = {role: found["derivation"] for role, found in status["channels"].items()}
        assert (event["status"], chosen) == ("final", montage), bed
        assert event["channels"].items() <= montage.items()
        assert event["judged"]["inside"] is False
        assert event["judged"]["montages"] == [["Fpz-Cz"]]
        assert status["judged"]["words"].startswith("The pack was not judged on this montage")
        assumed = [words for words in status["problems"] if "what it is measured against" in words]
        assert bool(assumed) == (gear == "openbci"), status["problems"]


def _first_events(listener: Listener, folder: Path, config: Path) -> dict[str, Any]:
    """Serve until every bed has its first event, and return them."""

    def events() -> dict[str, Any]:
        topics = {m.topic for m in listener.messages if m.topic.endswith("/events")}
        return {topic.split("/")[-2]: listener.json_of(topic)[0] for topic in topics}

    with daemon(folder / "run", "run", "-c", str(config)) as running:
        running.wait_for(lambda: len(events()) == len(MONTAGES), "the first events", 200.0)
        assert running.end() == 0
    return events()

"""Who made a pack can be proved, and a configuration can ask for it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hypnocast.cli import app
from hypnocast.config.tables import Config, PackTable
from hypnocast.errors import ConfigError, PackError
from hypnocast.live.service.build import open_pack
from hypnocast.stagers.packs.files import SIGNATURE
from hypnocast.stagers.packs.pack import load_pack, verify_pack
from hypnocast.stagers.packs.signing import check_signature, make_keys, signature_of
from support.needs import need_module
from support.packs import make_tiny_pack

PASSWORD = "correct horse"


@dataclass(frozen=True)
class Signed:
    folder: Path
    key: Path
    public: str


def never() -> str:
    raise AssertionError("no password is asked for")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    need_module("minisign")
    folder = tmp_path_factory.mktemp("signed")
    pack = make_tiny_pack(folder / "tiny")
    secret, public, line = make_keys(PASSWORD)
    (folder / "lab.key").write_bytes(secret)
    (folder / "lab.key.pub").write_bytes(public)
    signature = signature_of(load_pack(pack), folder / "lab.key", lambda: PASSWORD)
    (pack / SIGNATURE).write_bytes(signature)
    return Signed(pack, folder / "lab.key", line)


@pytest.fixture
def signed(made: Signed, tmp_path: Path) -> Signed:
    """Return a copy that may be harmed."""
    return Signed(Path(shutil.copytree(made.folder, tmp_path / "tiny")), made.key, made.public)


def test_a_signed_pack_is_loaded_where_its_key_is_asked_for(signed: Signed) -> None:
    pack = load_pack(signed.folder)
    assert verify_pack(signed.folder) == ()
    signed_as = check_signature(pack, signed.public)
    assert signed_as == check_signature(pack, str(signed.key.with_name("lab.key.pub")))
    assert signed_as == f"{pack.manifest.name} {pack.manifest.version} {pack.digest}"
    config = Config(pack=PackTable(name=str(signed.folder), signed_by=signed.public))
    assert open_pack(config).digest == pack.digest


@pytest.mark.attack("packs: signatures")
@pytest.mark.parametrize("what", ["none", "another key", "another pack", "half", "noise"])
def test_a_pack_that_the_key_did_not_sign_is_refused(signed: Signed, what: str) -> None:
    signature, public = signed.folder / SIGNATURE, signed.public
    match what:
        case "none":
            signature.unlink()
        case "another key":
            public = make_keys("")[2]
        case "another pack":
            manifest = signed.folder / "pack.toml"
            manifest.write_bytes(manifest.read_bytes() + b"\n# another\n")
        case "half":
            signature.write_bytes(signature.read_bytes()[:90])
        case _:
            signature.write_bytes(bytes(range(256)) * 100)
    with pytest.raises(PackError, match="signed"):
        open_pack(Config(pack=PackTable(name=str(signed.folder), signed_by=public)))


def test_a_signature_of_what_it_says_beside_cannot_be_changed(signed: Signed) -> None:
    signature = signed.folder / SIGNATURE
    signature.write_bytes(signature.read_bytes().replace(b"tiny", b"tidy"))
    with pytest.raises(PackError, match="was not signed by"):
        check_signature(load_pack(signed.folder), signed.public)


def test_a_wrong_password_and_what_is_no_key_are_refused(signed: Signed, tmp_path: Path) -> None:
    pack = load_pack(signed.folder)
    with pytest.raises(ConfigError, match="password"):
        signature_of(pack, signed.key, lambda: "guess")
    (tmp_path / "no.key").write_text("no key\n")
    with pytest.raises(ConfigError, match="no secret key"):
        signature_of(pack, tmp_path / "no.key", never)
    with pytest.raises(ConfigError, match="no public key"):
        check_signature(pack, "RWnokey")


def test_the_command_line_makes_keys_signs_and_verifies(made: Signed, tmp_path: Path) -> None:
    pack = make_tiny_pack(tmp_path / "tiny")
    runner, key = CliRunner(), tmp_path / "key"
    outcome = runner.invoke(app, ["pack", "key", str(key)], input="\n\n")
    assert outcome.exit_code == 0, outcome.output
    public = outcome.output.split('"')[1]
    assert key.stat().st_mode & 0o777 == 0o600
    again = runner.invoke(app, ["pack", "key", str(key)])
    assert "is there already" in str(again.exception)
    assert runner.invoke(app, ["pack", "sign", str(pack), str(key)]).exit_code == 0
    good = runner.invoke(app, ["pack", "verify", str(pack), "--key", public])
    assert good.exit_code == 0
    assert f"signed by {public}: " in good.output
    bad = runner.invoke(app, ["pack", "verify", str(pack), "--key", made.public, "--json"])
    assert bad.exit_code == 1
    assert "was not signed by" in json.loads(bad.output)["faults"][0]

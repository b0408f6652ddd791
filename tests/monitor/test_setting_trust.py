"""What awry.toml of the current folder may not set, and who may."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from monitor.config.check import check
from monitor.doctor.examine import examine
from monitor.errors import SettingsError
from monitor.setting_trust import OUTPUTS, RUNS
from monitor.settings import Settings, load_settings
from tests.support.cli import AWRY, environment

REFUSED = {
    "trust_remote_code": "true",
    "judge_command": '["./judge"]',
    "state_dir": '"state"',
    "verdicts_out": '"../verdicts.jsonl"',
    "answers_out": '"/etc/profile.d/x.sh"',
    "dead_letters_out": '"~/../../x"',
}
# Settings of files that are only read.
READ = {"rules_file", "chat_template", "kafka_ssl_ca_file", "kafka_ssl_cert_file", "kafka_ssl_key_file"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "awry.toml"  # the test's folder is the current one


@pytest.mark.parametrize("name", REFUSED)
def test_the_folders_own_file_may_not_set_it(file: Path, name: str) -> None:
    file.write_text(f'privacy = "none"\n{name} = {REFUSED[name]}\n')
    if name == "dead_letters_out":  # no shell is here: it is a folder called ~, and above it
        (file.parent / "~").mkdir()
    with pytest.raises(SettingsError, match=rf"^{name} \(awry\.toml:2\): .*nobody named.*AWRY_CONFIG=\./awry\.toml"):
        load_settings()


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_was_named_may(file: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(f"{name} = {REFUSED[name]}\n")
    monkeypatch.setenv("AWRY_CONFIG", "awry.toml")
    assert getattr(load_settings(), name)


def test_the_environment_and_flags_may(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_TRUST_REMOTE_CODE", "true")
    assert load_settings(state_dir=file.parent).trust_remote_code


def test_nothing_that_is_set_elsewhere_excuses_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("trust_remote_code = true\n")
    monkeypatch.setenv("AWRY_TRUST_REMOTE_CODE", "false")
    with pytest.raises(SettingsError, match="trust_remote_code"):
        load_settings(trust_remote_code=False)


def test_a_name_in_capitals_is_the_same_name(file: Path) -> None:
    file.write_text("TRUST_remote_code = true\n")
    with pytest.raises(SettingsError, match=r"^trust_remote_code \(awry\.toml:1\)"):
        load_settings()


def test_a_file_destination_stays_in_the_folder(file: Path) -> None:
    destination = '[[destinations]]\nname = "siem"\nkind = "file"\npath = "{}"\n'
    file.write_text(destination.format("alerts/siem.jsonl"))
    assert load_settings().destinations[0].path == Path("alerts/siem.jsonl")
    file.write_text('[[destinations]]\nname = "c"\nkind = "console"\n' + destination.format("/root/.bashrc"))
    with pytest.raises(SettingsError, match=r"^destinations \(awry\.toml:7\): writes to a file outside"):
        load_settings()


def test_a_link_does_not_lead_out_of_the_folder(file: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "bashrc"
    (file.parent / "answers.jsonl").symlink_to(elsewhere)
    file.write_text('verdicts_out = "answers.jsonl"\n')
    with pytest.raises(SettingsError, match="verdicts_out"):
        load_settings()
    file.write_text('mitigate = "all"\n')  # its answers go to answers.jsonl without being told to
    with pytest.raises(SettingsError, match="answers_out"):
        load_settings()


@pytest.mark.parametrize("out", ["-", "none", "kafka:awry.verdicts", "out/verdicts.jsonl"])
def test_what_is_no_file_outside_is_allowed(file: Path, out: str) -> None:
    file.write_text(f'verdicts_out = "{out}"\ntrust_remote_code = false\n')
    assert load_settings().verdicts_out == out


def test_every_setting_of_this_kind_is_known() -> None:
    """A new one that runs something, or names a file, is refused in such a file, or listed here as only read."""
    of_the_kind = {
        name
        for name, field in Settings.model_fields.items()
        if "Path" in str(field.annotation) or name.endswith(("_out", "_command", "_dir", "_code", "_path"))
    }
    assert of_the_kind == {*RUNS, *OUTPUTS} | READ


def test_the_code_of_a_model_in_such_a_folder_does_not_run(tmp_path: Path) -> None:
    """The folder of a stranger, from end to end."""
    model, proof = tmp_path / "m", tmp_path / "it-ran"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}')
    (model / "evil.py").write_text(f"open({str(proof)!r}, 'w')\nfrom transformers import PretrainedConfig as Config\n")
    (tmp_path / "awry.toml").write_text('trust_remote_code = true\nmodel = "./m"\n')
    (tmp_path / "s.jsonl").write_text('{"id": "1", "prompt": "hello"}\n')
    command = [AWRY, "run", "--source", "s.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("awry: trust_remote_code (awry.toml:1): ")
    assert not proof.exists()
    # What looks for faults and goes on does not run it either.
    checked = check()
    assert (checked.settings.model, checked.settings.trust_remote_code) == ("./m", False)
    assert not [finding for finding in examine({"state_dir": tmp_path}) if finding.part in ("model", "probes")]
    assert not proof.exists()

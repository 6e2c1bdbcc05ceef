"""SSH host keys of new instances come through the account, never from whoever answers at the address."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from flowerbed.aws import learn
from flowerbed.errors import EnvironmentLacks, WorkFailed
from flowerbed.inventory import Instance
from tests.terraform import aws

REGION = "eu-central-1"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
FORGED = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "B" * 43


def keys_block(key: str) -> str:
    """What cloud-init writes to the console at the end of a first boot, with its own line ends."""
    keys = ["ecdsa-sha2-nistp256 AAAAE2VjZHNh root@ip-10-81-0-9", f"{key} root@ip-10-81-0-9", "ssh-rsa AAAAB3 root@x"]
    lines = ["-----BEGIN SSH HOST KEY KEYS-----", *keys, "-----END SSH HOST KEY KEYS-----"]
    return "".join(f"{line}\r\n" for line in lines)


@dataclass(frozen=True)
class Account:
    """An account in which machines boot when the test says so."""

    consoles: Path
    ec2: Any

    def instance(self) -> Instance:
        made = self.ec2.run_instances(ImageId="ami-1e749f67", MinCount=1, MaxCount=1)
        return Instance(id=made["Instances"][0]["InstanceId"], region=REGION)

    def boots(self, instance: Instance, console: str) -> None:
        (self.consoles / instance.id).write_text(console, newline="")


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    consoles = tmp_path_factory.mktemp("consoles")
    with pytest.MonkeyPatch.context() as patch, aws.server(consoles) as environment:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield Account(consoles, boto3.client("ec2", region_name=REGION))


def test_a_new_machines_key_is_read_from_its_console_and_pinned(account: Account, tmp_path: Path) -> None:
    instance = account.instance()
    account.boots(instance, f"Linux version 6.1.0\r\nci-info: up\r\n{keys_block(KEY)}login: ")
    assert learn({"hospital-a": instance}, tmp_path, patience=0) == {"hospital-a": KEY}
    assert (tmp_path / f"{instance.id}.pub").read_text() == f"{KEY}\n"


def test_a_pinned_key_is_not_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    (tmp_path / "i-1.pub").write_text(f"{KEY}\n")
    assert learn({"hospital-a": Instance(id="i-1", region=REGION)}, tmp_path, patience=0) == {"hospital-a": KEY}


def test_what_the_console_says_after_the_first_boots_keys_does_not_count(account: Account, tmp_path: Path) -> None:
    instance = account.instance()
    account.boots(instance, keys_block(KEY) + keys_block(FORGED))
    assert learn({"hospital-a": instance}, tmp_path, patience=0) == {"hospital-a": KEY}


def test_a_machine_made_afresh_is_another_one_and_has_another_key(account: Account, tmp_path: Path) -> None:
    for key in (KEY, FORGED):
        instance = account.instance()
        account.boots(instance, keys_block(key))
        assert learn({"hospital-a": instance}, tmp_path, patience=0) == {"hospital-a": key}


def test_a_machine_that_is_still_booting_is_waited_for(account: Account, tmp_path: Path) -> None:
    instance, heard = account.instance(), []

    def boot(what: str) -> None:
        heard.append(what)
        account.boots(instance, keys_block(KEY))

    assert learn({"hospital-a": instance}, tmp_path, patience=30, progress=boot) == {"hospital-a": KEY}
    assert heard == ["waiting for the SSH host key of hospital-a"]


def test_a_machine_that_shows_no_key_is_named_and_the_others_are_pinned(account: Account, tmp_path: Path) -> None:
    booted, silent = account.instance(), account.instance()
    account.boots(booted, keys_block(KEY))
    with pytest.raises(WorkFailed, match=rf"hospital-b \({silent.id} in {REGION}\) cannot be reached") as failed:
        learn({"hospital-a": booted, "hospital-b": silent}, tmp_path, patience=0)
    assert "\n" not in str(failed.value)
    assert [file.name for file in tmp_path.iterdir()] == [f"{booted.id}.pub"]


def test_an_account_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "y"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(WorkFailed, match=f"AWS {REGION} does not answer"):
        learn({"hospital-a": Instance(id="i-1", region=REGION)}, tmp_path, patience=0)


def test_without_credentials_the_user_is_told_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "PROFILE", "ENDPOINT_URL"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(EnvironmentLacks, match="no AWS credentials: set AWS_PROFILE"):
        learn({"hospital-a": Instance(id="i-1", region=REGION)}, tmp_path, patience=0)

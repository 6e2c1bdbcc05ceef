"""What the modules make anew for a rotation, step by step and after an interruption."""

from pathlib import Path

from ansible_collections.flowerbed.federation.plugins.module_utils import pki

from tests.ansible.support import Direct, Result

PASSPHRASE = "correct horse battery"


def test_the_next_node_key_lies_beside_the_one_in_use_until_it_is_taken(direct: Direct, tmp_path: Path) -> None:
    path = str(tmp_path / "node_key")
    first = direct("node_key", path=path)
    following = direct("node_key", path=path, next=True)
    assert following["public_key"] == first["public_key"]
    assert direct("node_key", path=path)["next_public_key"] == following["next_public_key"] != ""
    assert not direct("node_key", path=path, next=True)["changed"]
    assert (tmp_path / "node_key.next").stat().st_mode & 0o777 == 0o600
    taken = direct("node_key", path=path, take_next=True)
    assert (taken["public_key"], taken["next_public_key"]) == (following["next_public_key"], "")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["node_key", "node_key.pub"]
    assert not direct("node_key", path=path, take_next=True)["changed"]


def test_check_mode_makes_no_next_key_and_takes_none(direct: Direct, tmp_path: Path) -> None:
    path = str(tmp_path / "node_key")
    first = direct("node_key", path=path)
    assert direct("node_key", path=path, next=True, _ansible_check_mode=True)["changed"]
    again = direct("node_key", path=path)
    assert not again["changed"]
    assert not again["diff"]
    assert {**again, "changed": True, "diff": first["diff"]} == first


def test_a_renewed_key_is_another_and_a_renewed_secret_as_well(direct: Direct, tmp_path: Path) -> None:
    request = {"key_path": str(tmp_path / "key"), "common_name": "a", "dns_names": ["localhost"]}
    secret = str(tmp_path / "secret")
    keys, secrets = set(), set()
    for renew in (False, False, True):
        direct("certificate_request", **request, renew=renew)
        direct("layout", secrets=[{"path": secret, "renew": renew}])
        keys.add((tmp_path / "key").read_bytes())
        secrets.add((tmp_path / "secret").read_bytes())
    assert (len(keys), len(secrets)) == (2, 2)


def authority(direct: Direct, folder: Path, rollover: str = "") -> Result:
    return direct("authority", path=str(folder), passphrase=PASSPHRASE, permitted_dns=["localhost"], rollover=rollover)


def test_both_authorities_are_trusted_while_one_takes_the_others_place(direct: Direct, tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    old = authority(direct, folder)["certificate"]
    assert authority(direct, folder, "prepare")["certificate"] == old
    prepared = pki.trusted(folder)
    assert prepared.startswith(old)
    assert prepared.count("BEGIN CERTIFICATE") == 2
    new = authority(direct, folder, "switch")["certificate"]
    # To the last byte what it was: services start anew where it changes.
    assert pki.trusted(folder) == prepared == old + new
    assert not (folder / "next").exists()
    authority(direct, folder, "finish")
    assert pki.trusted(folder) == new != old


def test_every_step_may_be_repeated_and_an_ordinary_call_in_between_undoes_none(direct: Direct, tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    authority(direct, folder)
    for step, trusted in (("prepare", 2), ("switch", 2), ("finish", 1)):
        assert authority(direct, folder, step)["changed"]
        assert not authority(direct, folder, step)["changed"]
        assert not authority(direct, folder)["changed"]
        assert len(pki.trusts(folder)) == trusted


def test_a_switch_that_was_interrupted_between_key_and_certificate_is_completed(direct: Direct, tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    authority(direct, folder)
    authority(direct, folder, "prepare")
    following = (folder / "next" / "ca.crt").read_text()
    (folder / "ca.key").write_bytes((folder / "next" / "ca.key").read_bytes())
    assert authority(direct, folder)["certificate"] == following
    assert not (folder / "next").exists()
    assert len(pki.trusts(folder)) == 2


def test_a_switch_without_a_next_authority_is_refused(direct: Direct, tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    authority(direct, folder)
    assert "prepare the next authority first" in authority(direct, folder, "switch")["msg"]
    authority(direct, folder, "prepare")
    assert "switch to it first" in authority(direct, folder, "finish")["msg"]

"""The collection's certificate and node modules, run by Ansible against real files and a real SuperLink."""

import json
import os
import pwd
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flowerbed.federation.plugins.module_utils import pki
from ansible_collections.flowerbed.federation.plugins.modules import nodes as module

from tests.ansible.support import BIN, ROOT, Direct, Play, Result, SuperLink, public_key

PASSPHRASE = "correct horse battery"
CHECK = {"check_mode": True, "diff": True}


def task(name: str, **options: Any) -> dict[str, Any]:
    return {f"flowerbed.federation.{name}": options}


def test_the_options_that_a_module_takes_are_those_it_documents(direct: Direct) -> None:
    names = [f"flowerbed.federation.{name}" for name in ("authority", "certificate", "certificate_request", "nodes")]
    done = subprocess.run(
        [str(BIN / "ansible-doc"), "--json", *names],
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=True,
    )
    documents = json.loads(done.stdout)
    assert list(documents) == names
    for name, document in documents.items():
        documented = document["doc"]["options"]
        required = {option: [] for option, value in documented.items() if value.get("required")}
        refusal = direct(name.rpartition(".")[2], **required, no_such_option=True)["msg"]
        taken = refusal.partition("Supported parameters include: ")[2].rstrip(".").split(", ")
        assert sorted(taken) == sorted(documented)
        assert all(option["description"] for option in documented.values())
        assert document["examples"]
        assert all(value["description"] for value in document["return"].values())


# Certificates


@dataclass(frozen=True)
class Certificates:
    """Parameters of the modules for one host, and what each step of one playbook gave."""

    folder: Path
    options: dict[str, dict[str, Any]]
    steps: dict[str, Result]


@pytest.fixture(scope="module")
def certificates(play: Play, tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    owner = pwd.getpwuid(folder.stat().st_uid).pw_name
    names = {"dns_names": ["flower.example.org"], "ip_addresses": ["10.77.0.10"]}
    permitted = {"permitted_dns": names["dns_names"], "permitted_ip": ["10.77.0.10/32"]}
    options: dict[str, dict[str, Any]] = {
        "authority": {"path": str(folder / "ca"), "passphrase": PASSPHRASE, **permitted},
        "request": {
            "key_path": str(folder / "server.key"),
            "certificate_path": str(folder / "server.crt"),
            "common_name": "coordinator",
            **names,
            "owner": owner,
            "group": owner,
        },
        "sign": {"authority": str(folder / "ca"), "passphrase": PASSPHRASE, **names},
        "loopback": {
            "key_path": str(folder / "runtime.key"),
            "self_signed_path": str(folder / "runtime.crt"),
            "common_name": "hospital-a",
            "dns_names": ["localhost"],
            "ip_addresses": ["127.0.0.1"],
            "owner": owner,
            "group": owner,
        },
    }
    authority = task("authority", **options["authority"])
    request = task("certificate_request", **options["request"])

    def sign(step: int) -> dict[str, Any]:
        """Sign what the step of that number requested."""
        in_use = {"csr": f"{{{{ result_{step}.csr }}}}", "current": f"{{{{ result_{step}.certificate }}}}"}
        return task("certificate", **options["sign"], **in_use)

    place = {"ansible.builtin.copy": {"dest": str(folder / "server.crt"), "content": "{{ result_5.certificate }}"}}
    tasks = {
        "check: authority": authority | CHECK,
        "check: request": request | CHECK,
        "check: sign": sign(1) | CHECK,
        "authority": authority,
        "request": request,
        "sign": sign(4) | {"diff": True},
        "place": place,
        "again: authority": authority,
        "again: request": request,
        "again: sign": sign(8),
    }
    steps = dict(zip(tasks, play(*tasks.values()), strict=True))
    return Certificates(folder, options, steps)


def test_check_mode_says_what_would_be_made_and_makes_nothing(certificates: Certificates) -> None:
    steps = certificates.steps
    assert [steps[f"check: {name}"]["changed"] for name in ("authority", "request", "sign")] == [True] * 3
    assert steps["check: request"]["csr"] == steps["check: authority"]["certificate"] == ""
    assert steps["check: sign"]["reasons"] == ["the host has no key yet"]
    # Made by the real run that follows, so that one found nothing.
    assert steps["authority"]["changed"]
    assert steps["request"]["changed"]


def test_the_authority_signs_what_the_host_requested(certificates: Certificates) -> None:
    steps = certificates.steps
    assert steps["sign"]["reasons"] == ["missing"]
    assert steps["sign"]["ca"] == steps["authority"]["certificate"]
    certificate = pki.read_certificate(steps["sign"]["certificate"].encode(), "")
    authority = pki.read_certificate(steps["sign"]["ca"].encode(), "")
    key = pki.read_key(certificates.folder / "server.key").public_key()
    names = pki.names(["flower.example.org"], ["10.77.0.10"])
    assert pki.reasons_to_renew(certificate, key, authority, names, renew_before=30) == []
    assert steps["sign"]["days_left"] in (364, 365)
    assert steps["sign"]["diff"]["before"] == "absent\n"


def test_a_second_run_changes_nothing(certificates: Certificates) -> None:
    again = {name: step["changed"] for name, step in certificates.steps.items() if name.startswith("again")}
    assert again == {"again: authority": False, "again: request": False, "again: sign": False}
    assert certificates.steps["again: sign"]["certificate"] == certificates.steps["sign"]["certificate"]


def test_the_key_is_readable_by_its_owner_alone_and_stays_on_its_host(certificates: Certificates) -> None:
    key = certificates.folder / "server.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (certificates.folder / "ca").stat().st_mode & 0o777 == 0o700
    assert "PRIVATE KEY" not in json.dumps(certificates.steps)


def test_the_passphrase_is_in_no_result(certificates: Certificates) -> None:
    assert PASSPHRASE not in json.dumps(certificates.steps)


def in_use(certificates: Certificates) -> dict[str, Any]:
    request = certificates.steps["again: request"]
    return {**certificates.options["sign"], "csr": request["csr"], "current": request["certificate"]}


def test_a_certificate_near_its_end_is_renewed(certificates: Certificates, direct: Direct) -> None:
    near = {**in_use(certificates), "renew_before": 400, "days": 500}
    check = direct("certificate", **near, _ansible_check_mode=True)
    assert (check["changed"], check["certificate"]) == (True, near["current"])
    renewed = direct("certificate", **near)
    assert renewed["changed"]
    assert "it expires soon" in renewed["reasons"][0]
    assert renewed["days_left"] >= 498


def test_a_certificate_is_signed_by_force(certificates: Certificates, direct: Direct) -> None:
    renewed = direct("certificate", **in_use(certificates), force=True)
    assert renewed["reasons"] == ["it was asked for by force"]
    assert renewed["certificate"] != in_use(certificates)["current"]


def test_the_loopback_has_a_certificate_that_vouches_for_itself(certificates: Certificates, direct: Direct) -> None:
    made = direct("certificate_request", **certificates.options["loopback"])
    assert made["changed"]
    assert (certificates.folder / "runtime.crt").read_text() == made["self_signed"]
    again = direct("certificate_request", **certificates.options["loopback"])
    assert (again["changed"], again["self_signed"]) == (False, made["self_signed"])


def test_a_key_that_others_could_read_is_closed_at_once(certificates: Certificates, direct: Direct) -> None:
    key = certificates.folder / "server.key"
    key.chmod(0o644)
    assert direct("certificate_request", **certificates.options["request"], _ansible_check_mode=True)["changed"]
    assert key.stat().st_mode & 0o777 == 0o644
    assert direct("certificate_request", **certificates.options["request"])["changed"]
    assert key.stat().st_mode & 0o777 == 0o600


def test_an_authority_for_more_names_than_asked_for_is_kept_with_a_warning(
    certificates: Certificates, direct: Direct
) -> None:
    fewer = direct("authority", **{**certificates.options["authority"], "permitted_dns": []})
    assert not fewer["changed"]
    assert "more than this federation's names: flower.example.org" in str(fewer["warnings"])


def test_an_error_is_one_line_that_names_the_remedy(certificates: Certificates, direct: Direct) -> None:
    authority, sign = certificates.options["authority"], in_use(certificates)
    (certificates.folder / "bad.key").write_text("nonsense")
    bad_key = {**certificates.options["request"], "key_path": str(certificates.folder / "bad.key")}
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("authority", {**authority, "passphrase": PASSPHRASE[:-1]}, "correct superlink_ca_passphrase"),
        ("authority", {**authority, "permitted_dns": ["new.example.org"]}, "may not vouch for new.example.org"),
        ("authority", {**authority, "permitted_ip": ["10.77.0.10/24"]}, "correct permitted_ip"),
        ("certificate", {**sign, "ip_addresses": []}, "asks for names that were not declared (10.77.0.10)"),
        ("certificate", {**sign, "authority": "/nowhere"}, "run the role authority first"),
        ("certificate", {**sign, "csr": "nonsense"}, "no certificate request in PEM form"),
        ("certificate", {**sign, "csr": ""}, "make the request with certificate_request"),
        ("certificate_request", bad_key, "bad.key holds no bare EC key"),
    ]
    for name, options, said in cases:
        result = direct(name, **options)
        assert result["failed"], said
        assert said in result["msg"]
        assert "\n" not in result["msg"]


# Nodes


@dataclass(frozen=True)
class Registrations:
    """What each step of one playbook gave, and the module's record after it."""

    record: dict[str, dict[str, str]]
    steps: dict[str, Result]


@pytest.fixture(scope="module")
def registrations(play: Play, superlink: SuperLink, tmp_path_factory: pytest.TempPathFactory) -> Registrations:
    folder = tmp_path_factory.mktemp("nodes")
    keys = {name: public_key() for name in ("a", "b", "c", "new b")}

    def nodes(**sites: str) -> dict[str, Any]:
        return task(
            "nodes",
            nodes=[{"name": f"hospital-{name}", "public_key": key} for name, key in sites.items()],
            superlink=superlink.address,
            root_certificates=str(superlink.ca),
            home=str(folder / "operator"),
            record=str(folder / "nodes.json"),
            database=str(superlink.database),
        )

    three = nodes(a=keys["a"], b=keys["b"], c=keys["c"])
    steps = {
        "check": three | CHECK,
        "register": three,
        "again": three,
        # One site has a new key, another was not reached.
        "new key": nodes(a="", b=keys["new b"], c=keys["c"]) | {"diff": True},
    }
    results = dict(zip(steps, play(*steps.values()), strict=True))
    return Registrations(json.loads((folder / "nodes.json").read_text()), results)


def ids(result: Result) -> dict[str, str]:
    return {name: node["node_id"] for name, node in result["nodes"].items()}


def test_check_mode_registers_nothing_and_shows_who_would_be(registrations: Registrations) -> None:
    check = registrations.steps["check"]
    assert check["changed"]
    assert check["nodes"] == {}
    lines = check["diff"]["after"].splitlines()
    assert [line.split()[0] for line in lines] == ["hospital-a", "hospital-b", "hospital-c"]
    assert registrations.steps["register"]["registered"] == ["hospital-a", "hospital-b", "hospital-c"]


def test_registered_sites_stay_as_they_are(registrations: Registrations) -> None:
    assert not registrations.steps["again"]["changed"]
    assert ids(registrations.steps["again"]) == ids(registrations.steps["register"])


def test_node_ids_are_exact_texts(registrations: Registrations) -> None:
    # Flower prints numbers above 2^53, which JSON readers round.
    assert all(isinstance(node_id, str) for node_id in ids(registrations.steps["register"]).values())
    assert registrations.record["hospital-a"]["node_id"] == ids(registrations.steps["register"])["hospital-a"]


def test_a_site_with_a_new_key_is_registered_anew_and_its_old_node_is_gone(registrations: Registrations) -> None:
    step = registrations.steps["new key"]
    assert step["unregistered"] == ["hospital-b (old key)"]
    assert step["registered"] == ["hospital-b"]
    assert ids(step)["hospital-b"] != ids(registrations.steps["register"])["hospital-b"]
    assert "hospital-b" in step["diff"]["before"]


def test_a_site_that_was_not_reached_stays_registered(registrations: Registrations) -> None:
    before, after = ids(registrations.steps["register"]), ids(registrations.steps["new key"])
    assert after["hospital-a"] == before["hospital-a"]
    assert not registrations.steps["new key"]["pending"]


# What can go wrong between a record and a SuperLink, through the module's own function


@dataclass(frozen=True)
class Coordinator:
    """Calls the module as the coordinator does, with a record of its own."""

    folder: Path
    options: dict[str, Any]

    def nodes(
        self,
        *,
        check: bool = False,
        options: dict[str, Any] | None = None,
        following: dict[str, str] | None = None,
        **sites: str,
    ) -> Result:
        wanted = [
            {"name": name, "public_key": key, "next_key": (following or {}).get(name, "")}
            for name, key in sites.items()
        ]
        return module.run({**self.options, **(options or {}), "nodes": wanted}, check, self.folder / "operator")

    @property
    def record(self) -> Path:
        return self.folder / "nodes.json"


@pytest.fixture
def coordinator(superlink: SuperLink, registrations: Registrations, tmp_path: Path) -> Coordinator:
    """Starts with a SuperLink that knows none of the sites of other tests."""
    coordinator = Coordinator(
        tmp_path,
        {
            "superlink": superlink.address,
            "root_certificates": str(superlink.ca),
            "insecure": False,
            "purge": True,
            "gone": [],
            "revoked": [],
            "record": str(tmp_path / "nodes.json"),
            "database": str(superlink.database),
            "wait": 0,
        },
    )
    coordinator.nodes()
    return coordinator


def live(superlink: SuperLink) -> int:
    with sqlite3.connect(superlink.database) as database:
        return int(database.execute("SELECT count(*) FROM node WHERE status != 'unregistered'").fetchone()[0])


def test_a_site_that_left_is_unregistered(coordinator: Coordinator, new_key: Callable[[], str]) -> None:
    sites = {"a": new_key(), "b": new_key()}
    coordinator.nodes(**sites)
    check = coordinator.nodes(check=True, a=sites["a"])
    left = coordinator.nodes(a=sites["a"])
    assert check["unregistered"] == left["unregistered"] == ["b"]
    assert list(left["nodes"]) == ["a"]


def test_a_site_that_comes_back_with_its_old_key_is_told_to_make_a_new_one(
    coordinator: Coordinator, new_key: Callable[[], str]
) -> None:
    # Flower never takes a key again that was unregistered.
    sites = {"a": new_key(), "b": new_key()}
    coordinator.nodes(**sites)
    coordinator.nodes(a=sites["a"])
    with pytest.raises(module.NodesError, match=r"'b' was unregistered once.*move /etc/flower/supernode/node_key away"):
        coordinator.nodes(**sites, c=new_key())
    # The others are served all the same.
    assert sorted(json.loads(coordinator.record.read_text())) == ["a", "c"]
    assert coordinator.nodes(a="", b=new_key(), c="")["registered"] == ["b"]


def test_a_lost_record_is_made_anew_and_no_key_is_lost(coordinator: Coordinator, new_key: Callable[[], str]) -> None:
    sites = {"a": new_key(), "b": new_key()}
    first = coordinator.nodes(**sites)
    coordinator.record.unlink()
    check = coordinator.nodes(check=True, **sites)
    second = coordinator.nodes(**sites)
    assert check["adopted"] == second["adopted"] == ["a", "b"]
    assert second["unregistered"] == []
    assert second["nodes"] == first["nodes"]


def test_without_record_and_database_nothing_is_unregistered_by_guess(
    coordinator: Coordinator, superlink: SuperLink, new_key: Callable[[], str]
) -> None:
    sites = {"a": new_key(), "b": new_key()}
    coordinator.nodes(**sites)
    coordinator.record.unlink()
    blind = {"database": str(coordinator.folder / "none.db")}
    with pytest.raises(module.NodesError, match=r"'a' is known to the SuperLink.*'b' is known"):
        coordinator.nodes(options=blind, **sites)
    assert coordinator.nodes(options=blind, a="", b="")["pending"] == ["a", "b"]
    assert live(superlink) == 2


def test_a_site_under_a_new_name_keeps_its_node(coordinator: Coordinator, new_key: Callable[[], str]) -> None:
    key = new_key()
    first = coordinator.nodes(hospital=key)
    second = coordinator.nodes(clinic=key)
    assert second["adopted"] == ["clinic"]
    assert second["unregistered"] == []
    assert ids(second)["clinic"] == ids(first)["hospital"]
    assert list(json.loads(coordinator.record.read_text())) == ["clinic"]


def test_two_sites_that_swap_their_names_keep_their_nodes(coordinator: Coordinator, new_key: Callable[[], str]) -> None:
    one, two = new_key(), new_key()
    first = ids(coordinator.nodes(a=one, b=two))
    second = coordinator.nodes(a=two, b=one)
    assert ids(second) == {"a": first["b"], "b": first["a"]}
    assert second["unregistered"] == second["registered"] == []


def test_a_node_that_no_site_has_is_unregistered_only_when_purging(
    coordinator: Coordinator, superlink: SuperLink, new_key: Callable[[], str]
) -> None:
    mine, stray = new_key(), new_key()
    coordinator.nodes(a=mine, stray=stray)
    record = json.loads(coordinator.record.read_text())
    node_id = record.pop("stray")["node_id"]
    coordinator.record.write_text(json.dumps(record))
    assert not coordinator.nodes(options={"purge": False}, a=mine)["changed"]
    assert live(superlink) == 2
    assert coordinator.nodes(a=mine)["unregistered"] == [f"node {node_id}"]
    assert live(superlink) == 1


def test_a_superlink_that_lost_its_nodes_gets_them_again(coordinator: Coordinator, new_key: Callable[[], str]) -> None:
    key = new_key()
    coordinator.record.write_text(
        json.dumps({"a": {"node_id": "1", "public_key": " ".join(key.split()[:2]), "registered_at": ""}})
    )
    assert coordinator.nodes(a=key)["registered"] == ["a"]
    assert not coordinator.nodes(a=key)["changed"]


def test_the_next_key_is_registered_beside_the_one_in_use(
    coordinator: Coordinator, superlink: SuperLink, new_key: Callable[[], str]
) -> None:
    key, following = new_key(), new_key()
    coordinator.nodes(a=key)
    assert coordinator.nodes(a=key, following={"a": following})["registered"] == ["a (next key)"]
    assert live(superlink) == 2
    assert not coordinator.nodes(a=key, following={"a": following})["changed"]


def test_the_old_key_stays_registered_until_the_new_one_is_seen_online(
    coordinator: Coordinator, superlink: SuperLink, new_key: Callable[[], str]
) -> None:
    key, following = new_key(), new_key()
    before = ids(coordinator.nodes(a=key, following={"a": following}))
    after = coordinator.nodes(a=following)
    assert after["adopted"] == ["a"]
    assert ids(after) != before
    assert after["unregistered"] == []
    assert live(superlink) == 2
    assert not coordinator.nodes(a=following)["changed"]


def test_the_record_keeps_the_nodes_that_a_site_had(coordinator: Coordinator, new_key: Callable[[], str]) -> None:
    had: list[str] = []
    for _ in range(3):
        coordinator.nodes(a=new_key())
        entry = json.loads(coordinator.record.read_text())["a"]
        assert {*entry["former"], *(other["node_id"] for other in entry["others"])} == set(had)
        had.append(entry["node_id"])
    assert len(set(had)) == 3


def test_a_site_that_left_in_the_middle_of_a_rotation_leaves_no_node(
    coordinator: Coordinator, superlink: SuperLink, new_key: Callable[[], str]
) -> None:
    coordinator.nodes(a=new_key(), following={"a": new_key()})
    coordinator.nodes()
    assert live(superlink) == 0


def test_a_revoked_key_is_unregistered_and_passed_over(
    coordinator: Coordinator, superlink: SuperLink, new_key: Callable[[], str]
) -> None:
    key, other, announced = new_key(), new_key(), new_key()
    coordinator.nodes(a=key, b=other, following={"a": announced})
    revoked = {"revoked": [key, announced]}
    turned_away = coordinator.nodes(options=revoked, a=key, b=other, following={"a": announced})
    assert turned_away["revoked"] == ["a"]
    assert list(turned_away["nodes"]) == ["b"]
    assert live(superlink) == 1
    assert not coordinator.nodes(options=revoked, a=key, b=other)["changed"]


def test_a_revoked_site_comes_back_with_a_new_key_alone(
    coordinator: Coordinator, superlink: SuperLink, new_key: Callable[[], str]
) -> None:
    key, following = new_key(), new_key()
    coordinator.nodes(a=key)
    back = coordinator.nodes(options={"revoked": [key]}, a=key, following={"a": following})
    assert back["unregistered"] == ["a (revoked key)"]
    assert coordinator.nodes(options={"revoked": [key]}, a=following)["nodes"].keys() == {"a"}
    assert live(superlink) == 1
    # A backup of the old key changes nothing for the new one.
    assert not coordinator.nodes(options={"revoked": [key]}, a=key)["changed"]


def test_waiting_names_the_sites_that_are_not_online(coordinator: Coordinator, new_key: Callable[[], str]) -> None:
    with pytest.raises(module.NodesError, match="not online after 1 s: a: look at"):
        coordinator.nodes(options={"wait": 1}, a=new_key(), b="")


def test_the_operators_folder_is_private_and_keeps_no_key(coordinator: Coordinator, new_key: Callable[[], str]) -> None:
    coordinator.nodes(a=new_key())
    home = coordinator.folder / "operator"
    assert home.stat().st_mode & 0o777 == 0o700
    assert not list(home.glob("*.pub"))


def test_user_errors_are_one_line_with_the_remedy(
    coordinator: Coordinator, superlink: SuperLink, new_key: Callable[[], str], tmp_path: Path
) -> None:
    key = new_key()
    other = pki.make_authority("Other CA", pki.permitted(["localhost"], []))
    (tmp_path / "other.crt").write_text(pki.to_pem(other.certificate))
    cases: list[tuple[str, dict[str, Any], dict[str, str]]] = [
        ("no SuperLink at 127.0.0.1:1 .*systemctl status", {"superlink": "127.0.0.1:1"}, {}),
        ("other.crt does not vouch for", {"root_certificates": str(tmp_path / "other.crt")}, {}),
        ("none.crt' is no file", {"root_certificates": str(tmp_path / "none.crt")}, {}),
        ("the sites 'a' and 'b' have the same key", {}, {"a": key, "b": key}),
        ("no ECDSA key in OpenSSH form", {}, {"a": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA"}),
    ]
    for said, options, sites in cases:
        with pytest.raises(module.NodesError, match=said) as error:
            coordinator.nodes(options=options, **sites)
        assert "\n" not in str(error.value)
    coordinator.record.write_text("nonsense")
    with pytest.raises(module.NodesError, match="is damaged: move it away"):
        coordinator.nodes(a=key)


def test_an_exclusive_folder_keeps_only_what_is_described(direct: Direct, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    kept = {"path": str(folder / "kept"), "content": "1", "owner": "root", "mode": "0600"}
    dropped = {**kept, "path": str(folder / "dropped")}
    exclusive = [{"path": str(folder), "mode": "0700", "exclusive": True}]
    direct("layout", directories=exclusive, files=[kept, dropped])
    looked = direct("layout", directories=exclusive, files=[kept], _ansible_check_mode=True)
    assert looked["changed_paths"] == [dropped["path"]]
    assert (folder / "dropped").exists()
    assert direct("layout", directories=exclusive, files=[kept])["changed_paths"] == [dropped["path"]]
    assert [file.name for file in folder.iterdir()] == ["kept"]
    assert not direct("layout", directories=exclusive, files=[kept])["changed"]


def test_layout_makes_a_file_once_and_leaves_it_to_whom_it_belongs(direct: Direct, tmp_path: Path) -> None:
    file = {"path": str(tmp_path / "approved"), "content": "none yet\n", "once": True}
    assert direct("layout", files=[file])["changed_paths"] == [file["path"]]
    Path(str(file["path"])).write_text("theirs\n")
    assert not direct("layout", files=[{**file, "content": "ours\n"}])["changed"]
    assert Path(str(file["path"])).read_text() == "theirs\n"

"""Seed 002: SuperLink, SuperNode and app with `build`, `deploy` and `train`, and each of their parameters."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import EXAMPLE, SITES, Standing, make, up
from tests.seeds.conftest import ASK

PACKAGE = "toolz"


# build: additional Python dependencies


def test_an_app_whose_dependency_the_release_lacks_is_refused_with_the_command_that_adds_it(
    standing: Standing, tmp_path: Path
) -> None:
    client = needing(PACKAGE, tmp_path)
    done = standing.flowerbed("run", *ASK[:2], "--client-code", str(client), "--federation", standing.path)
    assert done.returncode == 2
    assert "client.py, line 1: release 1.41.0-" in done.stderr and f"lacks the module '{PACKAGE}'" in done.stderr
    assert "`flowerbed release add" in done.stderr


def test_a_dependency_that_is_added_is_in_the_next_release_of_every_host(standing: Standing, tmp_path: Path) -> None:
    standing.succeed("release", "add", standing.path, PACKAGE)
    before = standing.succeed("status", standing.path)["release"]
    standing.succeed("up", standing.path)
    assert standing.succeed("status", standing.path)["release"] != before
    client = needing(PACKAGE, tmp_path)
    run = standing.succeed(
        *("run", *ASK[:2], "--client-code", str(client), "--federation", standing.path, "-c", "sites=3")
    )
    assert len(answers_of(standing, run)) == len(SITES)


def needing(package: str, folder: Path) -> Path:
    """The client's file with one more import."""
    client = folder / "client.py"
    client.write_text(f"import {package}\n" + Path(ASK[3]).read_text())
    return client


def answers_of(standing: Standing, run: dict[str, str]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(
        (standing.work / run["folder"] / "files" / "answers.json").read_text()
    )
    return found


# deploy: endpoints, and the public keys that are let in


def test_the_status_names_the_endpoints_and_their_health(standing: Standing) -> None:
    status = standing.succeed("status", standing.path)
    assert status["gateway"] == f"{standing.gateway}:443"
    assert status["healthy"] is True
    assert all(set(host["units"].values()) <= {"active"} for host in status["hosts"])


def test_only_nodes_with_a_listed_public_key_are_registered(standing: Standing) -> None:
    listed = json.loads(standing.flwr("supernode", "list", "--format", "json").stdout)["nodes"]
    record = json.loads(standing.host("coordinator").check_output("cat /var/lib/flower/nodes.json"))
    assert {str(node["node-id"]) for node in listed} == {str(record[site]["node_id"]) for site in SITES}


# train: the app from a project, from a git reference, from inline code; its id; its status until it is completed


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example in a git repository with a tag."""
    folder = tmp_path_factory.mktemp("git")
    shutil.copytree(EXAMPLE, folder / "apps" / "breast_cancer", ignore=shutil.ignore_patterns("__pycache__"))
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main")
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "first"), ("tag", "v1")):
        subprocess.run(["git", *identity, *words], cwd=folder, check=True)
    return f"git+file://{folder}@v1#subdirectory=apps/breast_cancer"


def test_an_app_from_a_git_reference_names_its_commit(standing: Standing, repository: str) -> None:
    run = standing.succeed("run", repository, "--federation", standing.path, "-c", "num-server-rounds=1")
    assert run["status"] == "completed"
    assert re.search(r"@[0-9a-f]{40}#subdirectory=apps/breast_cancer$", run["origin"])


def test_an_app_from_inline_code_gets_a_name_of_its_own(standing: Standing) -> None:
    run = standing.succeed("run", *ASK, "--federation", standing.path, "-c", "sites=3", "-c", "label=icu")
    assert re.fullmatch(r"server-client-[0-9a-f]{8}", run["app"]["name"])
    assert {answer["run.label"] for answer in answers_of(standing, run).values()} == {"icu"}


def test_an_app_from_a_fab_is_the_one_that_was_reviewed(standing: Standing, tmp_path: Path) -> None:
    # `flwr build` takes no folder whose name has an underscore.
    app = shutil.copytree(EXAMPLE, tmp_path / "breast-cancer", ignore=shutil.ignore_patterns("__pycache__"))
    built = standing.flwr("build", "--app", str(app))
    assert built.returncode == 0, built.stderr
    fab = next(standing.work.glob("*.fab"))
    reviewed = standing.succeed("app", "hash", str(fab))["hash"]
    run = standing.succeed("run", str(fab), "--federation", standing.path, "-c", "num-server-rounds=1")
    assert run["app"]["fab_hash"] == reviewed


def test_a_run_has_an_id_and_its_status_is_followed_until_completion(standing: Standing) -> None:
    words = ("--federation", standing.path)
    started = standing.succeed("run", str(EXAMPLE), *words, "--detach", "-c", "num-server-rounds=1")
    assert started["run_id"].isdecimal()
    states = {one["run_id"]: one["status"] for one in standing.succeed("runs", standing.path)["runs"]}
    assert not states[started["run_id"]].startswith("finished")
    followed = standing.flowerbed("logs", started["run_id"], *words, "--follow")
    assert followed.returncode == 0 and "[ROUND 1/1]" in followed.stdout
    assert standing.succeed("wait", *words)["runs"][0]["status"] == "completed"
    assert standing.succeed("wait", *words) == {"runs": []}, "what is home is waited for no more"


# deploy: insecure mode for tests, isolation, resources, environment, secrets, volumes

OTHER = """
superlink_insecure: true
superlink_test_federation: true
superlink_authentication: false
gateway_insecure: true
gateway_test_federation: true
supernode_insecure: true
supernode_authentication: false
supernode_test_federation: true
supernode_isolation: subprocess
supernode_environment: {WARD: icu}
supernode_volumes: [{source: /usr/share/common-licenses, target: /srv/reference}]
supernode_secrets: {database: not-a-real-one}
"""


@pytest.fixture(scope="module")
def insecure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A federation of one site without TLS, whose SuperNode starts ClientApps itself."""
    made = make(tmp_path_factory.mktemp("insecure"), "insecure", ["hospital-a", "hospital-b"], "10.87.0.0/16")
    made.set_sites(["hospital-a"])
    with (made.federation.path / "group_vars" / "all.yml").open("a") as file:
        file.write(OTHER)
    with up(made):
        yield made


def test_a_test_federation_may_do_without_tls_and_without_listed_keys(insecure: Standing) -> None:
    run = insecure.succeed("run", *ASK, "--federation", insecure.path, "-c", "sites=1")
    assert run["status"] == "completed" and len(answers_of(insecure, run)) == 1


def test_a_client_app_has_the_environment_the_volume_and_the_secret_that_the_role_gives(insecure: Standing) -> None:
    run = insecure.succeed("run", *ASK, "--federation", insecure.path, "-c", "sites=1")
    (answer,) = answers_of(insecure, run).values()
    assert (answer["environment"], answer["secret"]) == ("icu", "not-a-real-one")
    assert "Apache License" in str(answer["volume"])


def test_with_isolation_subprocess_the_supernode_itself_starts_client_apps(insecure: Standing) -> None:
    host = insecure.host("hospital-a")
    assert "--isolation subprocess" in host.check_output("systemctl show --property=ExecStart flower-supernode")
    assert host.run("systemctl is-active flower-superexec-clientapp").stdout.strip() != "active"

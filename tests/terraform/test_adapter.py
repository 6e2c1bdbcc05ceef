"""The adapter over python-terraform: what it reads is what Terraform said in this call."""

from pathlib import Path

from flowerbed.terraform import Terraform


def test_what_another_terraform_left_in_the_platforms_folder_is_not_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / ".terraform").mkdir(parents=True)
    (root / "main.tf").write_text('output "answer" { value = 42 }\n')
    (root / ".terraform" / "terraform.tfstate").write_text('{"version": 3, ')  # as another process is writing it
    variables = tmp_path / "root.tfvars"
    variables.write_text("")
    terraform = Terraform(root, tmp_path / "state", {}, variables, {})
    terraform.init()
    assert terraform.plan().changes
    terraform.apply()
    assert terraform.output("answer") == 42

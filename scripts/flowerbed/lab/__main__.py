"""`python -m flowerbed.lab`: the lab's hosts from a shell, or from Terraform."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from flowerbed import lab
from flowerbed.errors import FlowerbedError, UsageError
from flowerbed.lab import image

_INTERRUPTED = 130  # what a shell reports after Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see `flowerbed.errors`)."""
    options = vars(_parser().parse_args(arguments))
    command = _COMMANDS[options.pop("command")]
    try:
        command(**options)
    except FlowerbedError as error:
        print(f"flowerbed.lab: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flowerbed.lab", description="Hosts on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)

    build = commands.add_parser("image", help="build the base image, once, and print its folder")
    build.add_argument("--suite", default="bookworm", choices=image.SUITES, help="Debian suite")

    create = commands.add_parser("create", help="make a host and wait for its SSH server")
    create.add_argument("--federation", required=True)
    create.add_argument("--name", required=True, help="host name")
    create.add_argument("--address", required=True, help="IPv4 address inside the network")
    create.add_argument("--network", required=True, help="the federation's network, as a CIDR")
    create.add_argument("--ssh-key-file", required=True, type=Path, help="public key that may log in as root")
    create.add_argument("--keys-dir", required=True, type=Path, help="folder that receives <name>.pub")
    create.add_argument("--data", default="", help="folder that the host sees as /srv/hospital")
    create.add_argument("--make-data", action="store_true", help="make that folder if it is missing")
    create.add_argument("--suite", default="bookworm", choices=image.SUITES, help="Debian suite")
    create.add_argument("--cpu-weight", default=100, type=int, help="its part of the processors, 1 to 10000")

    for name, text in (
        ("destroy", "shut a host down and remove all of it"),
        ("stop", "shut a host down; its disk stays"),
        ("kill", "cut a host's power; its disk stays"),
        ("start", "power a host on, with its disk as it was"),
        ("cut", "cut a host off from its peers; SSH from this machine stays"),
        ("restore", "undo cut"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--federation", required=True)
        command.add_argument("--name", required=True, help="host name")
        if name == "cut":
            command.add_argument("--all", dest="everything", action="store_true", help="cut SSH too")

    everything = commands.add_parser("destroy-all", help="destroy a federation's hosts and network")
    everything.add_argument("--federation", required=True)

    listing = commands.add_parser("list", help="print the hosts and their states as JSON")
    listing.add_argument("--federation", help="only this federation's")
    return parser


def _create(ssh_key_file: Path, keys_dir: Path, data: str, make_data: bool, cpu_weight: int, **values: str) -> None:
    try:
        key = ssh_key_file.read_text().strip()
    except OSError as error:
        raise UsageError(f"ssh-key-file {ssh_key_file} cannot be read: {error.strerror}") from None
    places = {"keys_dir": str(keys_dir.absolute()), "data": data}
    lab.create(lab.HostSpec(ssh_key=key, make_data=make_data, cpu_weight=cpu_weight, **places, **values))


def _list(federation: str | None) -> None:
    print(json.dumps([asdict(host) for host in lab.hosts(federation)], indent=2))


_COMMANDS: dict[str, Callable[..., None]] = {
    "image": lambda suite: print(image.ensure(suite)),
    "create": _create,
    "destroy": lab.destroy,
    "destroy-all": lab.destroy_all,
    "list": _list,
    "cut": lab.cut,
    "restore": lab.restore,
    "stop": lab.stop,
    "kill": lab.kill,
    "start": lab.start,
}


if __name__ == "__main__":
    sys.exit(main())

# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Closes a host to new connections but for those that are named, without locking the operator out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Close a host to new connections but for those that are named
version_added: "0.2.0"
description:
  - Keeps one nftables table of its own, C(inet flower_firewall), and never touches another.
  - Refuses before any change where the host serves on a port that the rules would close.
  - New rules are taken back by the host itself unless a new connection of the operator confirms them; only then
    are they written to where they are loaded at boot.
options:
  state:
    description:
      - V(look) only checks; V(present) loads the rules and confirms them; V(absent) removes table and unit.
      - V(confirmed) and V(reverted) are the action plugin's own.
    type: str
    choices: [look, present, absent, confirmed, reverted]
    default: present
  ssh_networks:
    description: Networks that may open SSH, in CIDR form; empty for all. The ports are those on which sshd listens.
    type: list
    elements: str
    default: []
  gateway_port:
    description: The gateway's port; 0 on a host without a gateway.
    type: int
    default: 0
  gateway_networks:
    description: Networks that may open the gateway's port, in CIDR form; empty for all.
    type: list
    elements: str
    default: []
  allowed_ports:
    description: More ports that stay open, as V(8443/tcp) or V(161/udp); without a protocol it is TCP.
    type: list
    elements: str
    default: []
  seconds:
    description: How many seconds the host waits for the confirmation.
    type: int
    default: 45
  direct:
    description: Confirm at once, for a playbook that runs on the host itself.
    type: bool
    default: false
  client:
    description: The address from which the operator's own session on the host comes; empty where there is none.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Says whether the rules would change.
  diff_mode:
    support: full
    description: Shows the rules before and after.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Close the host but for SSH and the gateway
  flowerbed.federation.firewall:
    ssh_networks: [198.51.100.0/24]
    gateway_port: 443
"""

RETURN = r"""
rules:
  description: The rules as nft reads them.
  type: str
  returned: when the state is present or look
pending:
  description: Whether the rules wait for their confirmation.
  type: bool
  returned: when the state is present
"""

import ipaddress
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flowerbed.federation.plugins.module_utils import audit, made

TABLE = "inet flower_firewall"
UNIT = "flower-egress@firewall.service"
RULES = Path("/etc/flower/egress/firewall.nft")
LOADED = Path("/var/lib/flower/firewall.table")
RUN = Path("/run/flower-firewall")
ROLLBACK = "flower-firewall-rollback"
_EMPTY = f"table {TABLE}\ndelete table {TABLE}\n"
_PORT = re.compile(r"([0-9]+)(?:/(tcp|udp))?")
_HIGHEST_PORT = 65535
_DHCP = {("udp", 68), ("udp", 546)}


class FirewallError(Exception):
    """What is wrong, in one line with the remedy."""


class Firewall:
    """The host's table, and what it should be."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.sockets = self._sockets()
        self.ssh_ports = self._ssh_ports()
        self.allowed = [_port(text) for text in self.params["allowed_ports"]]

    def look(self) -> None:
        """Raises FirewallError where the rules would cut off what the host serves, or the operator."""
        open_ports = {*_DHCP, *self.allowed, *(("tcp", port) for port in self.ssh_ports)}
        open_ports.add(("tcp", self.params["gateway_port"]))
        cut = sorted({(port, kind, program) for kind, port, program in self.sockets if (kind, port) not in open_ports})
        if cut:
            named = ", ".join(f"{port}/{kind} ({program})" for port, kind, program in cut)
            raise FirewallError(
                f"the firewall would close {named}, on which this host serves: add what must stay open to "
                "firewall_allowed_ports, or set firewall_manage to false"
            )
        client, networks = self.params["client"], [_network(text) for text in self.params["ssh_networks"]]
        address = ipaddress.ip_address(client or "127.0.0.1")
        if networks and not (address.is_loopback or any(address in network for network in networks)):
            raise FirewallError(
                f"the firewall would lock you out: your session comes from {client}, which is in none of "
                "firewall_ssh_networks: add its network"
            )

    def present(self) -> dict[str, Any]:
        """Load the rules if they are not what is loaded; they then wait for their confirmation."""
        rules, before = self.rules(), RULES.read_text() if RULES.exists() else ""
        in_force = self.table()
        expected = LOADED.read_text() if LOADED.exists() else ""
        if rules == before and in_force and in_force == expected and self._systemctl("is-enabled", UNIT):
            return {"changed": False, "pending": False, "rules": rules}
        result = {"changed": True, "pending": not self.module.check_mode, "rules": rules}
        result["diff"] = {"before_header": str(RULES), "after_header": str(RULES), "before": before, "after": rules}
        if self.module.check_mode:
            return result
        if not shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin:/bin"):
            raise FirewallError("nft is missing on this host: install the package nftables")
        RUN.mkdir(mode=0o700, exist_ok=True)
        (RUN / "new.nft").write_text(rules)
        self._run("nft", "--check", "--file", str(RUN / "new.nft"))
        # An earlier call may have ended before its confirmation: what was there before it still counts.
        if not self._systemctl("stop", f"{ROLLBACK}.timer") or not (RUN / "previous.nft").exists():
            (RUN / "previous.nft").write_text(_EMPTY + in_force)
        back = ["--quiet", "--collect", f"--unit={ROLLBACK}", f"--on-active={self.params['seconds']}"]
        back += ["--timer-property=AccuracySec=1s", "/usr/sbin/nft", "--file", str(RUN / "previous.nft")]
        self._run("systemd-run", *back)
        self._run("nft", "--file", str(RUN / "new.nft"))
        if self.params["direct"]:
            self.confirmed()
            result["pending"] = False
        return result

    def confirmed(self) -> None:
        """Keep the rules, at every boot from now on; raises FirewallError when they were taken back already."""
        if not self._systemctl("is-active", f"{ROLLBACK}.timer"):
            raise FirewallError("the confirmation came too late, the rules were taken back: run the same command again")
        self._run("systemctl", "stop", f"{ROLLBACK}.timer")
        (RUN / "previous.nft").unlink(missing_ok=True)
        for path, content in ((RULES, (RUN / "new.nft").read_text()), (LOADED, self.table())):
            made.note_file(path)
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}.new")
            new.write_text(content)
            new.chmod(0o644)
            new.replace(path)
        self._run("systemctl", "enable", "--now", UNIT)  # which has systemd read every unit anew
        audit.record("firewall.applied", "this host is closed but for what its firewall names", result="applied")

    def reverted(self) -> None:
        """Wait until the host has taken the rules back."""
        deadline = time.monotonic() + self.params["seconds"]
        while self._systemctl("is-active", f"{ROLLBACK}.timer") and time.monotonic() < deadline:
            time.sleep(0.5)
        (RUN / "previous.nft").unlink(missing_ok=True)

    def absent(self) -> bool:
        """Remove the table and what loads it; returns whether there was any of it."""
        there = RULES.exists() or bool(self.table())
        if there and not self.module.check_mode:
            self._systemctl("stop", f"{ROLLBACK}.timer")
            self._systemctl("disable", "--now", UNIT)
            if self.table():
                self._run("nft", "delete", "table", *TABLE.split())
            for path in (RULES, LOADED, RUN / "previous.nft", RUN / "new.nft"):
                path.unlink(missing_ok=True)
        return there

    def rules(self) -> str:
        """The table as nft reads it."""
        lines = [
            "type filter hook input priority filter; policy accept;",
            'iifname "lo" accept',
            "ct state established,related accept",
            "ct state invalid counter drop",
            "icmp type { destination-unreachable, time-exceeded, parameter-problem, echo-request } accept",
            "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, "
            "nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query } accept",
            "udp sport 67 udp dport 68 accept",
            "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
            *(_open("tcp", port, self.params["ssh_networks"]) for port in self.ssh_ports),
        ]
        if self.params["gateway_port"]:
            lines.append(_open("tcp", self.params["gateway_port"], self.params["gateway_networks"]))
        lines += [_open(kind, port, []) for kind, port in sorted(set(self.allowed))]
        lines += ['limit rate 6/minute burst 12 packets log prefix "flower-firewall: "', "counter drop"]
        body = "".join(f"        {line}\n" for text in lines for line in text.splitlines())
        return f"# Written by Flowerbed.\n{_EMPTY}table {TABLE} {{\n    chain input {{\n{body}    }}\n}}\n"

    def table(self) -> str:
        """The table as the kernel has it, without counts; empty when there is none."""
        if not shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin:/bin"):
            return ""
        code, out, _ = self.module.run_command(["nft", "--stateless", "list", "table", *TABLE.split()])
        return "" if code else str(out)

    def _sockets(self) -> list[tuple[str, int, str]]:
        """Protocol, port and program of everything that listens to more than the loopback."""
        _, out, _ = self.module.run_command(
            ["ss", "--no-header", "--listening", "--numeric", "--processes", "--tcp", "--udp"], check_rc=True
        )
        first_own = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        found = []
        for line in out.splitlines():
            words = line.split()
            address, _, port = words[4].rpartition(":")
            address = address.strip("[]").split("%")[0].strip("[]")
            # A UDP socket with a port of the system's choice asks; its answers belong to what it asked.
            asks = words[0] == "udp" and int(port) >= first_own
            if asks or (address != "*" and ipaddress.ip_address(address).is_loopback):
                continue
            program = re.search(r'\(\("([^"]+)"', line)
            found.append((words[0], int(port), program[1] if program else "unknown program"))
        return found

    def _ssh_ports(self) -> list[int]:
        """Where sshd listens, itself or through systemd, and where the operator's connection came in."""
        ports = {port for kind, port, program in self.sockets if program == "sshd"}
        _, out, _ = self.module.run_command(["systemctl", "show", "--property=ActiveState,Listen", "ssh.socket"])
        if "ActiveState=active" in out:
            ports |= {int(port) for port in re.findall(r":([0-9]+) \(Stream\)", out)}
        connection = os.environ.get("SSH_CONNECTION", "").split()
        return sorted(ports | {int(port) for port in connection[3:4]})

    def _systemctl(self, *words: str) -> bool:
        code, _, _ = self.module.run_command(["systemctl", "--quiet", *words])
        return int(code) == 0

    def _run(self, *command: str) -> None:
        code, _, err = self.module.run_command(list(command))
        if code:
            raise FirewallError(f"'{' '.join(command[:3])}' failed: {' '.join(err.split())}")


def _open(kind: str, port: int, networks: list[str]) -> str:
    """The rules, a line each, that let these networks open a port."""
    if not networks:
        return f"{kind} dport {port} accept"
    found = [_network(text) for text in networks]
    families = {
        "ip": [one for one in found if isinstance(one, ipaddress.IPv4Network)],
        "ip6": [one for one in found if isinstance(one, ipaddress.IPv6Network)],
    }
    return "\n".join(
        f"{family} saddr {{ {', '.join(map(str, ipaddress.collapse_addresses(ones)))} }} {kind} dport {port} accept"
        for family, ones in families.items()
        if ones
    )


def _network(text: str) -> Any:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise FirewallError(f"'{text}' is no network: write it like 198.51.100.0/24") from None


def _port(text: str) -> tuple[str, int]:
    found = _PORT.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= _HIGHEST_PORT:
        raise FirewallError(f"firewall_allowed_ports: '{text}' is no port: write it like 8443/tcp or 161/udp")
    return found[2] or "tcp", int(found[1])


def main() -> None:
    """Do what the state says."""
    networks = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["look", "present", "absent", "confirmed", "reverted"],
                "default": "present",
            },
            "ssh_networks": networks,
            "gateway_port": {"type": "int", "default": 0},
            "gateway_networks": networks,
            "allowed_ports": networks,
            "seconds": {"type": "int", "default": 45},
            "direct": {"type": "bool", "default": False},
            "client": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    result: dict[str, Any] = {"changed": False}
    try:
        firewall = Firewall(module)
        state = module.params["state"]
        if state in ("look", "present"):
            firewall.look()
            result = firewall.present() if state == "present" else {"changed": False, "rules": firewall.rules()}
        elif state == "absent":
            result = {"changed": firewall.absent()}
        elif state == "confirmed":
            firewall.confirmed()
        else:
            firewall.reverted()
    except FirewallError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename} cannot be read or written: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()

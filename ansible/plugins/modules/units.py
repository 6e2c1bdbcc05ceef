# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps systemd units running with the files that are on the host now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: units
short_description: Keep systemd units running with the files that are on the host now
version_added: "0.1.0"
description:
  - Enables and starts units, and restarts or reloads a unit that is older than one of the files it reads.
  - It compares times instead of waiting for a notification, so a play that was interrupted between writing
    a file and restarting a unit is mended by the next one.
  - A unit that does not come up fails the task with the unit's own last words.
options:
  units:
    description: The units, in the order in which they start.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The unit's full name.
        type: str
        required: true
      reads:
        description: Files and links that the unit reads when it starts; the unit's own files always count.
        type: list
        elements: path
        default: []
      reload:
        description: The unit takes changed files by a reload.
        type: bool
        default: false
      reloads:
        description: Files that the unit takes by a reload, while those in I(reads) and its own need a restart.
        type: list
        elements: path
        default: []
      rules:
        description:
          - A file of nftables rules that the unit loads into the table that the file names first.
          - Where other rules are loaded than the file says, the unit is reloaded.
        type: path
      on_demand:
        description: Something else starts it, such as its socket. It is neither enabled nor started here.
        type: bool
        default: false
      port:
        description: A TCP port of the loopback on which it must listen before the task ends.
        type: int
  absent:
    description: Units to stop and disable, such as those of a mode that was switched off.
    type: list
    elements: str
    default: []
  timeout:
    description: How many seconds a unit has to come up and to listen.
    type: int
    default: 180
attributes:
  check_mode:
    support: full
    description: Says which units would be started, restarted, reloaded or stopped.
  diff_mode:
    support: full
    description: Shows what would be done, and rules that are loaded and should not be.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Run the SuperLink
  flowerbed.federation.units:
    units:
      - name: flower-superlink.service
        reads: [/opt/flower/current, /etc/flower/superlink/server.crt]
        port: 8000
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["restart flower-superlink.service: /etc/flower/superlink/server.crt is newer"]
"""

import re
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

_PROPERTIES = "LoadState,ActiveState,UnitFileState,NeedDaemonReload,StateChangeTimestamp,FragmentPath,DropInPaths"


class Units:
    """Brings units into the wanted state and remembers what it did."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.actions: list[str] = []
        self.diffs: list[dict[str, str]] = []
        self._seen: dict[str, dict[str, str]] = {}

    def look(self, names: list[str]) -> None:
        """See how all of them are with one question, until something is done."""
        if not names:
            return
        command = ["systemctl", "show", "--timestamp=us+utc", f"--property={_PROPERTIES}", *names]
        _, out, _ = self.module.run_command(command, check_rc=True)
        states = [dict(line.split("=", 1) for line in one.splitlines() if "=" in line) for one in out.split("\n\n")]
        self._seen |= zip(names, states, strict=True)

    def show(self, name: str) -> dict[str, str]:
        """The unit's properties."""
        if name not in self._seen:
            self.look([name])
        return self._seen[name]

    def enable(self, units: list[dict[str, Any]]) -> None:
        """Let all of them start at boot with one call, for systemd reads every unit anew after it."""
        lasting = [unit["name"] for unit in units if not unit["on_demand"]]
        known = [name for name in lasting if self.show(name)["LoadState"] != "not-found"]
        names = [name for name in known if self.show(name)["UnitFileState"] not in ("enabled", "static", "indirect")]
        if names:
            self._do("enable", names, "it does not start at boot")

    def keep(self, unit: dict[str, Any]) -> None:
        """Start, restart or reload the unit as needed."""
        name = unit["name"]
        state = self.show(name)
        if state["LoadState"] == "not-found":
            if not self.module.check_mode:
                self.module.fail_json(msg=f"{name} is not installed on this host: run the role's configure step")
            self.actions.append(f"start {name}")
            return
        if unit["on_demand"] and state["ActiveState"] not in ("active", "reloading"):
            return
        if state["ActiveState"] not in ("active", "reloading"):
            self._do("restart", [name], f"it is {state['ActiveState']}")
        else:
            own = [state["FragmentPath"], *state["DropInPaths"].split()]
            newer = self._newer_file(state, [*own, *unit["reads"]])
            reloaded = self._newer_file(state, unit["reloads"])
            if newer:
                self._do("reload" if unit["reload"] else "restart", [name], f"{newer} is newer")
            elif reloaded:
                self._do("reload", [name], f"{reloaded} is newer")
            elif unit["rules"] and (other := self._other_rules(unit["rules"])):
                self.diffs.append({"before_header": name, "after_header": unit["rules"], **other})
                self._do("reload", [name], f"other rules are loaded than {unit['rules']} says")

    def wait(self, units: list[dict[str, Any]], seconds: float) -> None:
        """Wait until all of them are active and listen."""
        deadline = time.monotonic() + seconds
        left = [unit for unit in units if not unit["on_demand"]]
        while left:
            self.look([unit["name"] for unit in left])
            left = [
                unit
                for unit in left
                if self.show(unit["name"])["ActiveState"] != "active" or not self._listens(unit["port"])
            ]
            if left and time.monotonic() > deadline:
                name, port = left[0]["name"], left[0]["port"]
                what = f"listen on port {port}" if port else "start"
                self.module.fail_json(msg=f"{name} did not {what}: {self._last_words(name)}")
            if left:
                time.sleep(0.2)

    def stop(self, name: str) -> None:
        """Stop and disable the unit if it is known."""
        state = self.show(name)
        if state["LoadState"] == "not-found":
            return
        if state["ActiveState"] not in ("inactive", "failed") or state["UnitFileState"] == "enabled":
            self._do("disable --now", [name], "its mode is switched off")

    def reload_definitions(self, names: list[str]) -> None:
        """Let systemd read changed unit files."""
        if self.module.check_mode:
            return
        if any(self._stale(self.show(name)) for name in names) or self._triggered_stale(names):
            self.module.run_command(["systemctl", "daemon-reload"], check_rc=True)
            self._seen.clear()

    def _triggered_stale(self, names: list[str]) -> bool:
        """Whether what a timer or a socket starts has changed; nobody names those units."""
        triggers = [name for name in names if name.endswith((".timer", ".socket"))]
        if not triggers:
            return False
        # A pattern shows what systemd has loaded, so an instance or a service that nobody needs is none of it.
        _, out, _ = self.module.run_command(["systemctl", "show", "--property=NeedDaemonReload", "flower-*"])
        return "NeedDaemonReload=yes" in out

    @staticmethod
    def _stale(state: dict[str, str]) -> bool:
        return state["NeedDaemonReload"] == "yes" or state["LoadState"] == "not-found"

    @staticmethod
    def _newer_file(state: dict[str, str], paths: list[str]) -> str:
        since = _seconds(state["StateChangeTimestamp"])
        for path in paths:
            file = Path(path)
            if (file.exists() or file.is_symlink()) and file.lstat().st_mtime > since:
                return path
        return ""

    def _other_rules(self, file: str) -> dict[str, str]:
        """The table as it is loaded and as the file says, where they differ; empty where they do not."""
        found = re.search(r"^table (\w+ \w+)$", Path(file).read_text(), re.MULTILINE) if Path(file).exists() else None
        if found is None:
            return {}
        show = ["nft", "--stateless", "list", "table", *found[1].split()]
        _, loaded, _ = self.module.run_command(show)
        # In a network of its own the kernel says how it writes these rules.
        script = 'nft --file "$1" && shift && exec "$@"'
        code, wanted, _ = self.module.run_command(["unshare", "--net", "sh", "-c", script, "sh", file, *show])
        return {"before": loaded, "after": wanted} if code == 0 and loaded != wanted else {}

    def _do(self, verb: str, names: list[str], why: str) -> None:
        self.actions += [f"{verb} {name}: {why}" for name in names]
        if self.module.check_mode:
            return
        code, _, err = self.module.run_command(["systemctl", *verb.split(), *names])
        self._seen.clear()
        # A unit that systemd will start again by itself is waited for; wait() has the last word.
        if code and self.show(names[0])["ActiveState"] != "activating":
            said = f"{' '.join(err.split())}; {self._last_words(names[0])}"
            self.module.fail_json(msg=f"{', '.join(names)}: {verb} failed: {said}")

    @staticmethod
    def _listens(port: int | None) -> bool:
        if port is None:
            return True
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def _last_words(self, name: str) -> str:
        _, out, _ = self.module.run_command(["journalctl", "--unit", name, "--no-pager", "--output=cat", "--lines=12"])
        words = [line.strip() for line in out.splitlines() if line.strip()]
        return "its last words: " + (" | ".join(words[-6:]) or "none") + f" (journalctl -u {name})"


def _seconds(timestamp: str) -> float:
    """Systemd's `Sun 2026-11-22 05:29:19.123456 UTC` in seconds since the epoch; 0 when it never changed."""
    if not timestamp or timestamp == "n/a":
        return 0.0
    _, day, clock, _ = timestamp.split()
    moment = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=UTC)
    return moment.timestamp()


def main() -> None:
    """Stop what must go, keep what must run, wait until it does."""
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "reads": {"type": "list", "elements": "path", "default": []},
                    "reload": {"type": "bool", "default": False},
                    "reloads": {"type": "list", "elements": "path", "default": []},
                    "rules": {"type": "path"},
                    "on_demand": {"type": "bool", "default": False},
                    "port": {"type": "int"},
                },
            },
            "absent": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    units = Units(module)
    wanted, absent = module.params["units"], module.params["absent"]
    names = [unit["name"] for unit in wanted]
    units.look([*names, *absent])
    for name in absent:
        units.stop(name)
    units.reload_definitions(names)
    units.enable(wanted)
    for unit in wanted:
        units.keep(unit)
    if units.actions and not module.check_mode:
        units.wait(wanted, module.params["timeout"])
    done = {"before": "", "after": "".join(f"{action}\n" for action in units.actions)}
    diff = [*units.diffs, done] if units.actions else []
    module.exit_json(changed=bool(units.actions), actions=units.actions, diff=diff)


if __name__ == "__main__":
    main()

"""A federation's network in the lab: a bridge in a network namespace of its own.

So this machine's firewall (a forward policy of drop, as Docker sets) neither breaks the hosts' traffic nor has to
be changed. One veth, the uplink, joins the bridge to this machine, which has the network's first address.
"""

import hashlib
import ipaddress
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from flowerbed.errors import UsageError
from flowerbed.lab.system import RUN, is_mounted, locked, run

Network = ipaddress.IPv4Network

_RULES = """
table bridge flowerbed {{
  set cut {{ type ifname; }}
  set dark {{ type ifname; }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname @dark drop
    oifname @dark drop
    iifname "{uplink}" oifname @cut ether type arp accept
    iifname @cut oifname "{uplink}" ether type arp accept
    iifname "{uplink}" oifname @cut tcp dport 22 accept
    iifname @cut oifname "{uplink}" tcp sport 22 accept
    iifname @cut drop
    oifname @cut drop
  }}
}}
"""

BRIDGE = "flbridge"
UPLINK = "uplink"


def namespace(federation: str) -> Path:
    """Return the file of the federation's network namespace (for `nsenter --net=FILE`)."""
    return RUN / federation / "netns"


def uplink_name(federation: str) -> str:
    """Return the name of this machine's interface to the federation (15 characters at most)."""
    return f"fl-{federation[:6].strip('-')}-{digest(federation, 4)}"


def digest(text: str, length: int) -> str:
    """Return the first `length` hexadecimal digits of a hash of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def gateway_address(network: Network) -> ipaddress.IPv4Address:
    """Return this machine's address in the network: the first one."""
    return network.network_address + 1


def ensure(federation: str, network: Network) -> None:
    """Make the federation's network if it is not there. The caller holds the federation's lock.

    Raises:
        UsageError: another interface or route of this machine uses the addresses already.
        WorkFailed: the kernel refuses a bridge, a veth or the packet filter.
    """
    uplink = uplink_name(federation)
    with locked(RUN / "network.lock"):  # two federations must not take one network at the same moment
        _refuse_used(federation, network)
        if exists(federation):
            return
        remove(federation)
        ns = namespace(federation)
        ns.parent.mkdir(parents=True, exist_ok=True)
        ns.touch()
        run(["unshare", f"--net={ns}", "true"])
        inside(federation, ["ip", "link", "set", "lo", "up"])
        inside(federation, ["ip", "link", "add", BRIDGE, "type", "bridge"])
        inside(federation, ["ip", "link", "set", BRIDGE, "addrgenmode", "none", "up"])
        inside(federation, ["nft", "-f", "-"], _RULES.format(uplink=UPLINK))
        run(["ip", "link", "add", uplink, "type", "veth", "peer", "name", UPLINK, "netns", ns])
        inside(federation, ["ip", "link", "set", UPLINK, "master", BRIDGE, "addrgenmode", "none", "up"])
        run(["ip", "link", "set", uplink, "addrgenmode", "none", "up"])
        run(["ip", "address", "add", f"{gateway_address(network)}/{network.prefixlen}", "dev", uplink])


def exists(federation: str) -> bool:
    """Tell whether the federation's network is complete: the uplink's address comes last."""
    return is_mounted(namespace(federation)) and bool(_addresses_of(uplink_name(federation)))


def remove(federation: str) -> None:
    """Remove the federation's network; nothing happens if there is none."""
    uplink, ns = uplink_name(federation), namespace(federation)
    if Path("/sys/class/net", uplink).exists():
        run(["ip", "link", "delete", uplink])
    if is_mounted(ns):
        run(["umount", ns])
    ns.unlink(missing_ok=True)


def inside(federation: str, command: Sequence[str], stdin: str | None = None) -> str:
    """Run a command in the federation's network namespace and return its output."""
    return run(["nsenter", f"--net={namespace(federation)}", *command], stdin)


def unplug(federation: str, interface: str) -> None:
    """Remove a host's interface now: the kernel does so some time after the host's last process has ended."""
    command = ["nsenter", f"--net={namespace(federation)}", "ip", "link", "delete", interface]
    subprocess.run(command, capture_output=True, check=False)  # it, or the whole network, may be gone already


def cut(federation: str, interface: str, *, everything: bool) -> None:
    """Drop an interface's traffic, but for SSH from this machine; `everything` drops that too."""
    chosen, other = ("dark", "cut") if everything else ("cut", "dark")
    restore(federation, interface, (other,))
    _change(federation, "add", chosen, interface)


def restore(federation: str, interface: str, sets: Sequence[str] = ("cut", "dark")) -> None:
    """Let an interface's traffic through again."""
    for name in sets:
        if interface in _members(federation, name):
            _change(federation, "delete", name, interface)


def cuts(federation: str) -> dict[str, str]:
    """Return the interfaces that are cut off: from their `peers`, or from `all`."""
    if not exists(federation):
        return {}
    peers, everything = _members(federation, "cut"), _members(federation, "dark")
    return dict.fromkeys(peers, "peers") | dict.fromkeys(everything, "all")


def _change(federation: str, verb: str, name: str, interface: str) -> None:
    inside(federation, ["nft", verb, "element", "bridge", "flowerbed", name, f"{{ {interface} }}"])


def _members(federation: str, name: str) -> list[str]:
    answer = json.loads(inside(federation, ["nft", "-j", "list", "set", "bridge", "flowerbed", name]))
    return [str(one) for item in answer["nftables"] if "set" in item for one in item["set"].get("elem", [])]


def _addresses_of(interface: str) -> list[str]:
    done = subprocess.run(
        ["ip", "-j", "-4", "address", "show", "dev", interface], capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else []
    return [f"{one['local']}/{one['prefixlen']}" for item in found for one in item.get("addr_info", [])]


def _refuse_used(federation: str, network: Network) -> None:
    own = uplink_name(federation)
    for address in _addresses_of(own):
        standing = ipaddress.ip_interface(address).network
        if standing != network:
            raise UsageError(
                f"federation {federation} stands on {standing}, not on {network}: "
                "take it down before you change network in its lab.tfvars"
            )
    for route in json.loads(run(["ip", "-j", "-4", "route", "show", "table", "main"])):
        if route["dst"] == "default" or route.get("dev") == own:
            continue
        if ipaddress.ip_network(route["dst"], strict=False).overlaps(network):
            raise UsageError(
                f"network {network} of federation {federation} is used already: this machine's interface "
                f"{route.get('dev', '?')} has {route['dst']}; set network in its lab.tfvars to a free one"
            )

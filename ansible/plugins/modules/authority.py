# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps the certificate authority of a federation on the operator's machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: authority
short_description: Keep the certificate authority of a federation
version_added: "0.1.0"
description:
  - Makes an authority that may vouch for the federation's own names and addresses and for nothing else (path
    length 0, critical name constraints), with its key encrypted by a passphrase.
  - Runs on the operator's machine (C(delegate_to) V(localhost)); the key never leaves it.
  - An authority that exists is checked on every call. The passphrase must open its key, it must be in force,
    and it must permit every name that is asked for. It is never replaced; the message says what to do.
  - The passphrase is kept out of all output, so the task needs no C(no_log), which would hide the messages.
requirements:
  - cryptography
options:
  path:
    description: Folder of the authority; it is made with mode 0700 and holds C(ca.crt) and C(ca.key).
    type: path
    required: true
  passphrase:
    description: Passphrase that encrypts the authority's key.
    type: str
    required: true
  common_name:
    description: The name that a new authority's certificate bears.
    type: str
    default: Flower federation CA
  permitted_dns:
    description: DNS names for which it may vouch. The standard includes the names below each.
    type: list
    elements: str
    default: []
  permitted_ip:
    description: Addresses or networks in CIDR form for which it may vouch.
    type: list
    elements: str
    default: []
  days:
    description: Days for which a new authority is valid.
    type: int
    default: 3650
  rollover:
    description:
      - A step of replacing the authority by a new one while both are trusted.
      - V(prepare) makes the next one and lets hosts trust both, V(switch) lets it sign, V(finish) ends the trust in the
        old one. Between two steps the hosts must have taken C(trust.crt), which holds the certificates to trust.
    type: str
    choices: ["", prepare, switch, finish]
    default: ""
attributes:
  check_mode:
    support: full
    description: Says whether an authority would be made; that of a missing one is empty.
  diff_mode:
    support: full
    description: Shows what a new authority may vouch for; never its key.
seealso:
  - module: flowerbed.federation.certificate_request
  - module: flowerbed.federation.certificate
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Keep the authority on the operator's machine
  flowerbed.federation.authority:
    path: "{{ inventory_dir }}/secrets/ca"
    passphrase: "{{ superlink_ca_passphrase }}"
    permitted_dns: [flower.example.org, localhost]
    permitted_ip: [127.0.0.1/32, 203.0.113.7/32]
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
certificate:
  description: The authority's certificate in PEM form; empty in check mode before there is one.
  type: str
  returned: success
fingerprint:
  description: SHA-256 fingerprint of the certificate, as C(openssl x509 -fingerprint) prints it.
  type: str
  returned: success
  sample: "0E:04:F0:D2:C0:5C:AB:BB:97:88:33:27:2F:B7:51:C7:59:69:FA:EC:1E:04:F0:D2:C0:5C:AB:BB:97:88:33:27"
not_after:
  description: When it ends, ISO 8601 in UTC.
  type: str
  returned: success
  sample: "2036-11-19T05:41:03Z"
days_left:
  description: Whole days until then.
  type: int
  returned: success
  sample: 3650
permitted:
  description: What the authority may vouch for, as its certificate says.
  type: list
  elements: str
  returned: success
  sample: [flower.example.org, 203.0.113.7/32]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.flowerbed.federation.plugins.module_utils import pki

_MODES = (("", 0o700), ("ca.key", 0o600), ("ca.crt", 0o644))
_ENDS_SOON_DAYS = 90


def check(folder: Path, certificate: pki.Certificate, passphrase: str, wanted: pki.Permitted) -> None:
    """Raise PkiError unless the authority can sign for every name in `wanted`."""
    pki.check_in_force(certificate, str(folder))
    pki.open_authority(folder, certificate, passphrase)
    permits = pki.permitted_by(certificate)
    missing = wanted.without(permits)
    if missing:
        raise pki.PkiError(
            f"the authority {folder} may not vouch for {missing}, it permits {permits}: "
            "correct permitted_dns and permitted_ip, or move the folder away and run again, "
            "a new authority is made and every certificate renewed"
        )


def tighten(folder: Path, check_mode: bool) -> list[str]:
    """Give folder and files their modes; returns what had another."""
    changed = []
    for name, mode in _MODES:
        path = folder / name
        if path.stat().st_mode & 0o7777 != mode:
            changed.append(f"{path} {path.stat().st_mode & 0o7777:04o} -> {mode:04o}")
            if not check_mode:
                path.chmod(mode)
    return changed


def roll(module: AnsibleModule, folder: Path, wanted: pki.Permitted) -> list[str]:
    """Keep trust.crt, and take the step of a rollover that was asked for; returns what was done."""
    params = module.params
    step, passphrase = params["rollover"], params["passphrase"]
    done = ["trust.crt written"] if pki.keep_trust(folder) else []
    if step == "prepare" and pki.prepare(
        folder, lambda: pki.make_authority(params["common_name"], wanted, params["days"]), passphrase
    ):
        done.append("the next authority made, both trusted")
    if step == "switch" and pki.switch(folder, passphrase):
        done.append("the next authority signs")
    if step == "finish" and pki.finish(folder):
        done.append("the old authority trusted no more")
    return done


def warn(module: AnsibleModule, folder: Path, certificate: pki.Certificate, wanted: pki.Permitted) -> None:
    """Say what is no error yet."""
    more = pki.permitted_by(certificate).without(wanted)
    if more:
        module.warn(f"the authority {folder} may vouch for more than this federation's names: {more}")
    days = pki.days_left(certificate)
    if days < _ENDS_SOON_DAYS:
        module.warn(
            f"the authority {folder} ends in {days} days: plan a day to move the folder away "
            "and run again, a new authority is made and every certificate renewed"
        )


def keep(module: AnsibleModule) -> dict[str, object]:
    """Make the authority when there is none, else check it; returns the module's result."""
    folder, passphrase = Path(module.params["path"]), module.params["passphrase"]
    wanted = pki.permitted(module.params["permitted_dns"], module.params["permitted_ip"])
    if not module.check_mode:
        pki.resume(folder)
    certificate = pki.read_authority(folder)
    if certificate is not None:
        check(folder, certificate, passphrase, wanted)
        warn(module, folder, certificate, wanted)
        changed = tighten(folder, module.check_mode)
        if not module.check_mode:
            changed += roll(module, folder, wanted)
            certificate = pki.read_authority(folder) or certificate
        return {"changed": bool(changed), "diff": {"prepared": "\n".join(changed)}, **describe(certificate)}
    made = pki.make_authority(module.params["common_name"], wanted, module.params["days"])
    diff = {
        "before_header": str(folder),
        "after_header": str(folder),
        "before": "absent\n",
        "after": f"authority '{module.params['common_name']}' for {wanted}\n",
    }
    if module.check_mode:
        empty = {"certificate": "", "fingerprint": "", "not_after": "", "days_left": module.params["days"]}
        return {
            "changed": True,
            "diff": diff,
            **empty,
            "permitted": [*wanted.dns, *map(str, wanted.networks)],
        }
    try:
        pki.save_authority(folder, made, passphrase)
        pki.keep_trust(folder)
    except OSError as error:
        raise pki.PkiError(f"{folder} cannot be written ({error.strerror}): correct path") from None
    return {"changed": True, "diff": diff, **describe(made.certificate)}


def describe(certificate: pki.Certificate) -> dict[str, object]:
    """The authority in the module's result."""
    allowed = pki.permitted_by(certificate)
    return {
        "certificate": pki.to_pem(certificate),
        "fingerprint": pki.fingerprint(certificate),
        "not_after": pki.not_after(certificate),
        "days_left": pki.days_left(certificate),
        "permitted": [*allowed.dns, *map(str, allowed.networks)],
    }


def main() -> None:
    """Keep the authority and report it."""
    texts = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "passphrase": {"type": "str", "required": True, "no_log": True},
            "common_name": {"type": "str", "default": "Flower federation CA"},
            "permitted_dns": texts,
            "permitted_ip": texts,
            "days": {"type": "int", "default": 3650},
            "rollover": {"type": "str", "choices": ["", "prepare", "switch", "finish"], "default": ""},
        },
        supports_check_mode=True,
    )
    if pki.CRYPTOGRAPHY_MISSING:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=pki.CRYPTOGRAPHY_MISSING)
    try:
        result = keep(module)
    except pki.PkiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

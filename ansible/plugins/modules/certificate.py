# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Signs a host's request with the authority on the operator's machine, when there is a reason to."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate
short_description: Sign a host's request for a certificate when there is a reason to
version_added: "0.1.0"
description:
  - Decides whether the certificate in use must be replaced, and if so signs the request with the authority.
  - Runs on the operator's machine (C(delegate_to) V(localhost)), where the authority is. Its key is
    opened only when something is signed.
  - The certificate bears the declared names, serves TLS servers alone and is never an authority, whatever the
    request asks for. A request for a name that was not declared is refused.
  - The passphrase is kept out of all output, so the task needs no C(no_log), which would hide the messages.
requirements:
  - cryptography
options:
  authority:
    description: Folder of the authority, as M(flowerbed.federation.authority) keeps it.
    type: path
    required: true
  passphrase:
    description: Passphrase of the authority's key.
    type: str
    required: true
  csr:
    description: The request in PEM form; empty only in check mode, when the host has no key yet.
    type: str
    required: true
  current:
    description: The certificate in use in PEM form, or an empty text.
    type: str
    default: ""
  dns_names:
    description: DNS names that the operator declares to be the host's.
    type: list
    elements: str
    default: []
  ip_addresses:
    description: IP addresses that the operator declares to be the host's.
    type: list
    elements: str
    default: []
  days:
    description: Days for which the certificate is valid; it ends with the authority at the latest.
    type: int
    default: 365
  renew_before:
    description: Days before its end at which a certificate is renewed.
    type: int
    default: 30
  force:
    description: Sign even when there is no reason to.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Gives the reasons and signs nothing; the certificate is then the one in use, if any.
  diff_mode:
    support: full
    description: Shows names and end of the certificate before and after.
seealso:
  - module: flowerbed.federation.authority
  - module: flowerbed.federation.certificate_request
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Sign the request on the operator's machine
  flowerbed.federation.certificate:
    authority: "{{ inventory_dir }}/secrets/ca"
    passphrase: "{{ superlink_ca_passphrase }}"
    csr: "{{ request.csr }}"
    current: "{{ request.certificate }}"
    dns_names: [flower.example.org]
    ip_addresses: [203.0.113.7]
  delegate_to: localhost
  register: signed
"""

RETURN = r"""
certificate:
  description:
    - The certificate to use, in PEM form, signed now or the one in use.
    - In check mode the one in use, which may be empty.
  type: str
  returned: success
ca:
  description:
    - The certificates that hosts trust, in PEM form. There are two while an authority is replaced by another.
    - Empty in check mode before there is an authority.
  type: str
  returned: success
reasons:
  description: Why the certificate was signed, or would be.
  type: list
  elements: str
  returned: success
  sample: ["it expires soon, on 2027-11-22"]
not_after:
  description: When the returned certificate ends, ISO 8601 in UTC; empty without one.
  type: str
  returned: success
  sample: "2027-11-22T05:41:03Z"
days_left:
  description: Whole days until then; 0 without a certificate.
  type: int
  returned: success
  sample: 365
fingerprint:
  description: SHA-256 fingerprint of the returned certificate; empty without one.
  type: str
  returned: success
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.flowerbed.federation.plugins.module_utils import pki


def decide(module: AnsibleModule, authority: pki.Certificate | None, current: pki.Certificate | None) -> list[str]:
    """Why a certificate must be signed; raises PkiError when the parameters cannot be used."""
    params = module.params
    declared = pki.names(params["dns_names"], params["ip_addresses"])
    if not module.check_mode and authority is None:
        raise pki.PkiError(f"there is no authority in {params['authority']}: run the role authority first")
    if not params["csr"]:
        if not module.check_mode:
            raise pki.PkiError("csr is empty: make the request with certificate_request on the host first")
        return ["the host has no key yet"]
    if authority is None:
        return ["there is no authority yet"]
    pki.check_in_force(authority, params["authority"])
    key = pki.requested_key(pki.read_request(params["csr"]))
    if params["current"] and current is None:
        return ["the certificate in use cannot be read"]
    reasons = pki.reasons_to_renew(current, key, authority, declared, renew_before=params["renew_before"])
    return reasons or (["it was asked for by force"] if params["force"] else [])


def run(module: AnsibleModule) -> dict[str, object]:
    """Returns the module's result; raises PkiError."""
    params, folder = module.params, Path(module.params["authority"])
    authority = pki.read_authority(folder)
    current = in_use(params["current"])
    reasons = decide(module, authority, current)
    certificate = current
    if reasons and not module.check_mode and authority is not None:
        certificate = pki.sign_request(
            pki.open_authority(folder, authority, params["passphrase"]),
            pki.read_request(params["csr"]),
            pki.names(params["dns_names"], params["ip_addresses"]),
            params["days"],
        )
    result = {
        "changed": bool(reasons),
        "reasons": reasons,
        "certificate": pki.to_pem(certificate) if certificate else "",
        "ca": pki.trusted(folder) if authority else "",
        "not_after": pki.not_after(certificate) if certificate else "",
        "days_left": pki.days_left(certificate) if certificate else 0,
        "fingerprint": pki.fingerprint(certificate) if certificate else "",
    }
    if reasons:
        after = f"signed: {'; '.join(reasons)}\n" if module.check_mode else show(certificate)
        result["diff"] = {"before": show(current), "after": after}
    return result


def in_use(pem: str) -> pki.Certificate | None:
    """The certificate in use, or None; one that cannot be read is replaced like a missing one."""
    try:
        return pki.read_certificate(pem.encode(), "current") if pem else None
    except pki.PkiError:
        return None


def show(certificate: pki.Certificate | None) -> str:
    """A line for the diff."""
    if certificate is None:
        return "absent\n"
    return f"{pki.alternative_names(certificate)} until {pki.not_after(certificate)}\n"


def main() -> None:
    """Sign when there is a reason to, return the certificate to use."""
    texts = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "authority": {"type": "path", "required": True},
            "passphrase": {"type": "str", "required": True, "no_log": True},
            "csr": {"type": "str", "required": True},
            "current": {"type": "str", "default": ""},
            "dns_names": texts,
            "ip_addresses": texts,
            "days": {"type": "int", "default": 365},
            "renew_before": {"type": "int", "default": 30},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if pki.CRYPTOGRAPHY_MISSING:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=pki.CRYPTOGRAPHY_MISSING)
    try:
        result = run(module)
    except pki.PkiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

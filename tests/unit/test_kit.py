"""A kit is used only if it is, to the last byte, what the consortium signed; here the real program `join` decides.

What a kit holds to be run is here one line that says so: no case in which that line appears by mistake may exist.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from flowerbed import kit
from flowerbed.errors import UsageError

sys.path.insert(0, str(Path(__file__).parents[2] / "ansible" / "collections"))

from ansible_collections.flowerbed.federation.plugins.module_utils import pki

NOW = datetime.now(UTC)
LOOPBACK = pki.names(["localhost"], [])
RUN = 'def apply(options, work, manifest):\n    print("USED")\n    return 0\n'
JOIN = Path(kit.__file__).with_name("join.py").read_bytes()
MANIFEST = {
    "kit": "0123",
    "federation": "study",
    "site": "hospital-d",
    "made": f"{NOW:%Y-%m-%dT%H:%M:%SZ}",
    "expires": f"{NOW + timedelta(days=30):%Y-%m-%dT%H:%M:%SZ}",
    "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
    "arch": "x86_64",
}
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def authority() -> pki.Authority:
    return pki.make_authority("Study CA", pki.permitted(["localhost"], ["10.0.0.0/24"]))


def signer(
    authority: pki.Authority, key: ec.EllipticCurvePrivateKey, days: int = 30, now: datetime = NOW
) -> x509.Certificate:
    return pki.sign_code_request(authority, pki.make_request(key, "kit", LOOPBACK), days, now)


def write(
    folder: Path,
    authority: pki.Authority,
    certificate: x509.Certificate | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
    manifest: Mapping[str, Any] = MANIFEST,
) -> str:
    """Write a kit's folder, signed by the certificate and the key; returns the CA's fingerprint."""
    key = key or pki.make_key()
    contents: dict[str, bytes | Path] = {
        "join": JOIN,
        "apply.py": RUN.encode(),
        "ca.crt": pki.to_pem(authority.certificate).encode(),
        "settings.json": b"{}\n",
        "release.tar": b"wheels",
    }
    for name, content in kit.seal(manifest, contents, certificate or signer(authority, key), key).items():
        assert isinstance(content, bytes)
        (folder / name).write_bytes(content)
    (folder / "join").chmod(0o755)
    return pki.fingerprint(authority.certificate)


def join(folder: Path, fingerprint: str) -> subprocess.CompletedProcess[str]:
    """Run the kit's program as the administrator does."""
    command = [sys.executable, "-I", str(folder / "join"), "--ca-fingerprint", fingerprint]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def refused(folder: Path, fingerprint: str, reason: str) -> None:
    done = join(folder, fingerprint)
    assert (done.returncode, "USED" in done.stdout) == (2, False), done.stdout + done.stderr
    assert done.stderr.startswith("refused: "), done.stderr
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_genuine_kit_is_used(authority: pki.Authority, tmp_path: Path) -> None:
    fingerprint = write(tmp_path, authority)
    for told in (fingerprint, fingerprint.lower().replace(":", ""), f"SHA256:{fingerprint}"):
        done = join(tmp_path, told)
        assert (done.returncode, "USED" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize("name", ["join", "apply.py", "settings.json", "release.tar"])
def test_a_changed_file_is_refused(authority: pki.Authority, tmp_path: Path, name: str) -> None:
    fingerprint = write(tmp_path, authority)
    with (tmp_path / name).open("ab") as stream:
        stream.write(b"\n#\n")
    refused(tmp_path, fingerprint, f"{name} is not as it was signed")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda kit: (kit / "manifest.json").write_bytes((kit / "manifest.json").read_bytes() + b" "), "signature"),
        (lambda kit: (kit / "manifest.p7s").write_bytes((kit / "manifest.p7s").read_bytes()[:-1] + b"?"), "signature"),
        (lambda kit: (kit / "manifest.p7s").write_bytes(b""), "signature"),
        (lambda kit: (kit / "manifest.p7s").unlink(), "manifest.p7s"),
        (lambda kit: (kit / "release.tar").unlink(), "release.tar"),
        (lambda kit: (kit / "ca.crt").write_text("none"), "ca.crt holds no certificate"),
    ],
    ids=["manifest", "signature", "no signature", "signature missing", "file missing", "no CA"],
)
def test_a_kit_that_was_changed_is_refused(
    authority: pki.Authority, tmp_path: Path, change: Change, reason: str
) -> None:
    fingerprint = write(tmp_path, authority)
    change(tmp_path)
    refused(tmp_path, fingerprint, reason)


def test_a_kit_of_another_authority_is_refused_whatever_it_calls_itself(
    authority: pki.Authority, tmp_path: Path
) -> None:
    other = pki.make_authority("Study CA", pki.permitted(["localhost"], []))
    write(tmp_path, other)
    told = pki.fingerprint(authority.certificate)
    refused(tmp_path, told, "another one than you were told of")
    # With the right CA in its place, the signature is not that CA's.
    (tmp_path / "ca.crt").write_text(pki.to_pem(authority.certificate))
    refused(tmp_path, told, "signature")
    # Both CAs in one file are not the right one.
    (tmp_path / "ca.crt").write_text(pki.to_pem(authority.certificate) + pki.to_pem(other.certificate))
    assert "USED" not in join(tmp_path, told).stdout


def test_a_signer_that_has_expired_is_refused(authority: pki.Authority, tmp_path: Path) -> None:
    key = pki.make_key()
    fingerprint = write(tmp_path, authority, signer(authority, key, 1, NOW - timedelta(days=3)), key)
    refused(tmp_path, fingerprint, "expired")


def test_a_server_of_the_federation_cannot_sign_a_kit(authority: pki.Authority, tmp_path: Path) -> None:
    key = pki.make_key()
    server = pki.sign_request(authority, pki.make_request(key, "gateway", LOOPBACK), LOOPBACK)
    refused(tmp_path, write(tmp_path, authority, server, key), "may not sign kits")


def test_the_key_of_the_authority_itself_signs_no_kit(authority: pki.Authority, tmp_path: Path) -> None:
    fingerprint = write(tmp_path, authority, authority.certificate, authority.key)
    refused(tmp_path, fingerprint, "kit")


def test_whoever_may_sign_kits_cannot_certify_another_signer(authority: pki.Authority, tmp_path: Path) -> None:
    middle = pki.make_key()
    below = pki.Authority(signer(authority, middle), middle)
    key = pki.make_key()
    fingerprint = write(tmp_path, authority, signer(below, key), key)
    refused(tmp_path, fingerprint, "signature")


def test_a_certificate_with_a_second_use_signs_no_kit(authority: pki.Authority, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    genuine = signer(authority, key)
    builder = x509.CertificateBuilder(
        genuine.issuer, genuine.subject, key.public_key(), 4711, genuine.not_valid_before_utc, NOW + timedelta(days=1)
    )
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH])
    for extension in genuine.extensions:
        value = both if isinstance(extension.value, x509.ExtendedKeyUsage) else extension.value
        builder = builder.add_extension(value, extension.critical)
    refused(
        tmp_path, write(tmp_path, authority, builder.sign(authority.key, hashes.SHA384()), key), "may not sign kits"
    )


def test_a_kit_that_has_expired_or_is_for_another_machine_says_what_to_ask_for(
    authority: pki.Authority, tmp_path: Path
) -> None:
    past = {**MANIFEST, "expires": "2026-01-31T00:00:00Z"}
    refused(tmp_path, write(tmp_path, authority, manifest=past), "expired on 2026-01-31: ask for a new one")
    other = write(tmp_path, authority, manifest={**MANIFEST, "python": "3.99"})
    refused(tmp_path, other, f"`--python {MANIFEST['python']}`")
    other = write(tmp_path, authority, manifest={**MANIFEST, "arch": "riscv64"})
    refused(tmp_path, other, "riscv64")


def test_a_file_that_lies_beside_the_program_is_not_imported(authority: pki.Authority, tmp_path: Path) -> None:
    fingerprint = write(tmp_path, authority)
    (tmp_path / "json.py").write_text('raise SystemExit("SMUGGLED")\n')
    done = subprocess.run(
        [tmp_path / "join", "--ca-fingerprint", fingerprint], capture_output=True, text=True, check=False
    )
    assert "SMUGGLED" not in done.stdout + done.stderr


def test_leaving_needs_nothing_of_the_kit_and_joining_needs_the_fingerprint(
    authority: pki.Authority, tmp_path: Path
) -> None:
    write(tmp_path, authority)
    (tmp_path / "manifest.p7s").unlink()

    def says(*words: str) -> tuple[int, str]:
        done = subprocess.run([tmp_path / "join", *words], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    code, said = says("--leave", "--purge")
    assert (code, "has not joined" in said or "only root" in said) == (2, True)
    assert says("--purge")[0] == says()[0] == 2
    assert "--ca-fingerprint is needed to join" in says()[1]


def test_a_signing_certificate_is_good_for_nothing_else(authority: pki.Authority, tmp_path: Path) -> None:
    certificate = signer(authority, pki.make_key())
    (tmp_path / "ca.crt").write_text(pki.to_pem(authority.certificate))
    (tmp_path / "signer.crt").write_text(pki.to_pem(certificate))
    for purpose, answer in (("any", 0), ("sslserver", 2), ("sslclient", 2), ("smimesign", 2), ("crlsign", 2)):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.crt", "signer.crt"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == answer, (purpose, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["supernode_label={}"], "did you mean supernode_labels"),
        (["supernode_labels=north"], "must be a mapping"),
        (["supernode_release=/tmp/x"], "supernode_release is no setting of a site"),
        (["supernode_proxy_password=secret"], "is a secret, and a kit holds none"),
        (["supernode_labels={a: '{{ x }}'}"], "template marker"),
        (["superlink_port=1"], "superlink_port is no setting of a site"),
        (["supernode_port"], "NAME=VALUE"),
    ],
    ids=str,
)
def test_a_setting_that_is_none_is_refused_before_anything_is_made(words: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        kit.refuse_settings(kit.read_settings(words, None), "--set")

"""TLS for the web server: certificate files, or a self-signed certificate made here.

Browsers give a camera only to https or localhost, so a self-signed certificate is what makes a call
possible on a local network without a domain. It is kept between starts: who has accepted it once is
not asked again.
"""

from __future__ import annotations

import datetime
import ipaddress
import logging
import os
import socket
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path

import ifaddr
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from calliope.errors import ConfigError

logger = logging.getLogger(__name__)

VALID_DAYS = 397  # what browsers take at most
RENEW_DAYS = 30
PEM_NAME = "self-signed.pem"


def build_context(tls: str, state_dir: Path | None = None) -> ssl.SSLContext | None:
    """The context that ``server.tls`` asks for: None for ``off``.

    A self-signed certificate is kept in ``state_dir`` (by default :func:`default_state_dir`), or
    made anew at each start where nothing can be written. ConfigError if it cannot be had.
    """
    if tls == "off":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if tls == "self-signed":
        _load_self_signed(context, state_dir or default_state_dir())
    else:
        certificate, comma, key = (part.strip() for part in tls.partition(","))
        if not (comma and certificate and key):
            raise ConfigError(
                f"server.tls is '{tls}', but must be 'off', 'self-signed' or 'CERT.pem,KEY.pem'."
            )
        _load_files(context, certificate, key)
    return context


def default_state_dir() -> Path | None:
    """Where this user's programs keep what should survive a restart; None without a home."""
    if state := os.environ.get("XDG_STATE_HOME"):
        return Path(state) / "calliope"
    try:
        return Path.home() / ".local" / "state" / "calliope"
    except RuntimeError:
        return None


def local_address() -> str | None:
    """This machine's address on the local network, as others there would type it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: only asks which way it would go
            address = str(probe.getsockname()[0])
        except OSError:
            address = ""
    if address and not ipaddress.ip_address(address).is_loopback:
        return address
    return next((a for a in local_addresses() if ipaddress.ip_address(a).version == 4), None)


def local_addresses() -> list[str]:
    """All addresses of this machine but loopback and link-local ones."""
    found = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            address = ipaddress.ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0])
            if not (address.is_loopback or address.is_link_local):
                found.append(str(address))
    return found


def _load_files(context: ssl.SSLContext, certificate: str, key: str) -> None:
    for path in (certificate, key):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"server.tls: cannot read '{path}': {error.strerror}.") from None
    try:
        # an encrypted key would make OpenSSL ask on the terminal; give it an empty answer instead
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(
            f"server.tls: '{certificate}' and '{key}' are not a PEM certificate and its "
            f"unencrypted key ({error})."
        ) from None


def _load_self_signed(context: ssl.SSLContext, state_dir: Path | None) -> None:
    names = _names()
    path = state_dir / PEM_NAME if state_dir is not None else None
    if path is not None and _is_good(path, names):
        context.load_cert_chain(path)
        return
    pem = make_certificate(names)
    if path is not None and _keep(path, pem):
        context.load_cert_chain(path)
    else:
        _load_pem(context, pem)


def make_certificate(names: Iterable[str]) -> bytes:
    """PEM of a new key and its self-signed certificate for these host names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Calliope (self-signed)")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS - 1))
        .add_extension(x509.SubjectAlternativeName(map(_general_name, names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def _names() -> list[str]:
    names = ["localhost", "127.0.0.1", "::1", *local_addresses()]
    host = socket.gethostname()
    if host.isascii() and host not in names:
        names.insert(1, host)
    return names


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _is_good(path: Path, names: list[str]) -> bool:
    """Whether the kept certificate still lasts and still names this machine as it is now."""
    try:
        pem = path.read_bytes()
        certificate = x509.load_pem_x509_certificate(pem)
        serialization.load_pem_private_key(pem, password=None)
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    ends = certificate.not_valid_after_utc
    if ends - datetime.datetime.now(datetime.UTC) < datetime.timedelta(days=RENEW_DAYS):
        return False
    return {_general_name(name) for name in names} <= set(alternatives.value)


def _keep(path: Path, pem: bytes) -> bool:
    """Write the key and certificate for this user's eyes only; False where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:  # mode 0600
            file.write(pem)
        os.replace(file.name, path)
    except OSError as error:
        logger.info(
            "The self-signed certificate cannot be kept (%s); it lasts until the end.", error
        )
        return False
    return True


def _load_pem(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a key and certificate that are in no file; OpenSSL reads only files."""
    if hasattr(os, "memfd_create"):  # needs no writable folder
        with open(os.memfd_create("certificate"), "wb", buffering=0) as file:
            file.write(pem)
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(file.name)
    except OSError as error:
        raise ConfigError(
            f"server.tls: no folder can be written for the self-signed certificate ({error})."
        ) from None

"""TLS: a certificate that names this machine, kept between starts; clear errors for bad files."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from calliope import tls
from calliope.errors import ConfigError


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


async def _served_certificate(context: ssl.SSLContext) -> bytes:
    """What a client is shown by a server with this context."""
    server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        assert isinstance(shown, bytes)
        return shown


def test_off_serves_plain_http() -> None:
    assert tls.build_context("off") is None


async def test_the_self_signed_certificate_is_kept_for_the_next_start(tmp_path: Path) -> None:
    first = tls.build_context("self-signed", tmp_path)
    second = tls.build_context("self-signed", tmp_path)
    assert first is not None
    assert second is not None
    assert await _served_certificate(first) == await _served_certificate(second)


def test_the_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    tls.build_context("self-signed", tmp_path)
    assert stat.S_IMODE((tmp_path / tls.PEM_NAME).stat().st_mode) == 0o600


def test_the_certificate_names_localhost_and_the_address_on_the_network(tmp_path: Path) -> None:
    tls.build_context("self-signed", tmp_path)
    names = _certificate(tmp_path / tls.PEM_NAME).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "localhost" in names.value.get_values_for_type(x509.DNSName)
    addresses = names.value.get_values_for_type(x509.IPAddress)
    assert ipaddress.ip_address("127.0.0.1") in addresses
    lan = tls.local_address()
    assert lan is None or ipaddress.ip_address(lan) in addresses


async def test_a_client_that_trusts_the_certificate_accepts_it_for_localhost(
    tmp_path: Path,
) -> None:
    context = tls.build_context("self-signed", tmp_path)
    server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        client = ssl.create_default_context(cafile=str(tmp_path / tls.PEM_NAME))
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client, server_hostname="localhost"
        )
        writer.close()


def test_a_certificate_for_another_address_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / tls.PEM_NAME
    path.write_bytes(tls.make_certificate(["localhost"]))
    before = _certificate(path)
    tls.build_context("self-signed", tmp_path)
    assert _certificate(path) != before


def test_a_certificate_near_its_end_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / tls.PEM_NAME
    with monkeypatch.context() as patch:
        patch.setattr(tls, "VALID_DAYS", tls.RENEW_DAYS - 1)
        tls.build_context("self-signed", tmp_path)
    before = _certificate(path)
    tls.build_context("self-signed", tmp_path)
    lasts = _certificate(path).not_valid_after_utc - before.not_valid_after_utc
    assert lasts > datetime.timedelta(days=300)


def test_a_broken_kept_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / tls.PEM_NAME).write_text("not a certificate")
    assert tls.build_context("self-signed", tmp_path) is not None


async def test_without_a_writable_folder_the_certificate_lives_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    context = tls.build_context("self-signed", tmp_path / "file" / "state")
    assert context is not None
    assert await _served_certificate(context)


def test_certificate_files_of_ones_own_are_taken(tmp_path: Path) -> None:
    pem = tmp_path / "own.pem"
    pem.write_bytes(tls.make_certificate(["example.org"]))
    assert tls.build_context(f"{pem}, {pem}") is not None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.tls.*missing\.pem"):
        tls.build_context(f"{tmp_path}/missing.pem,{tmp_path}/missing.pem")


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    for name in ("a.pem", "b.pem"):
        (tmp_path / name).write_bytes(tls.make_certificate(["localhost"]))
    with pytest.raises(ConfigError, match=r"b\.pem"):
        tls.build_context(f"{tmp_path}/a.pem,{tmp_path}/b.pem")


def test_an_encrypted_key_is_refused_instead_of_asked_for(tmp_path: Path) -> None:
    pem = tls.make_certificate(["localhost"])
    key = serialization.load_pem_private_key(pem, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "own.pem").write_bytes(pem)
    (tmp_path / "key.pem").write_bytes(locked)
    with pytest.raises(ConfigError, match="unencrypted"):
        tls.build_context(f"{tmp_path}/own.pem,{tmp_path}/key.pem")


def test_half_a_pair_of_files_is_refused() -> None:
    with pytest.raises(ConfigError, match="self-signed"):
        tls.build_context("only.pem")


def test_the_address_on_the_network_is_not_loopback() -> None:
    address = tls.local_address()
    assert address is None or not ipaddress.ip_address(address).is_loopback

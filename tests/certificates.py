"""Certificates for tests of TLS, made by openssl: a site's authority, and a stranger's."""

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Identity(NamedTuple):
    """A certificate and its private key, PEM."""

    certificate: Path
    key: Path


class Authority:
    """One that signs certificates."""

    def __init__(self, folder: Path, name: str) -> None:
        """Make the authority's own certificate."""
        if shutil.which("openssl") is None:
            pytest.fail("openssl is missing: apt-get install openssl")
        self.folder = folder
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "3650", "-subj", f"/CN={name}", "-keyout", self._key),
            *("-out", self.certificate),
        )

    def sign(
        self, name: str, *, days: int = 365, rsa: bool = False, host: str = "firstread.invalid"
    ) -> Identity:
        """Make a certificate of a host; ``days`` below 0: one that has expired."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        request, extension = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extension.write_text(f"subjectAltName=DNS:{host}\n")
        kind = ("rsa:2048",) if rsa else ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        _openssl(
            *("req", "-new", "-newkey", *kind, "-nodes"),
            *("-subj", f"/O=Site/CN={name}", "-keyout", key, "-out", request),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key),
            *("-CAcreateserial", "-days", days, "-out", certificate, "-extfile", extension),
        )
        key.chmod(0o600)
        return Identity(certificate, key)

    def client_context(self, identity: Identity | None = None) -> ssl.SSLContext:
        """Make what a client speaks TLS with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.certificate)
        if identity is not None:
            context.load_cert_chain(*identity)
        return context

    def server_context(self, identity: Identity) -> ssl.SSLContext:
        """Make what a server speaks TLS with; its clients need a certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*identity)
        context.load_verify_locations(self.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

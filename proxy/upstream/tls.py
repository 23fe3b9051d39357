"""TLS settings, made once.  Verification is always on; nothing here can turn it off."""

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

from proxy.model.ports import TransportFault


@dataclass(slots=True, frozen=True)
class Trust:
    """Whom we believe and who we are.  `ca_file` replaces the system's authorities; a client
    certificate without a key file holds its key itself."""

    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None


def build_context(trust: Trust) -> ssl.SSLContext:
    """Raises OSError (which ssl.SSLError is) when a file cannot be used."""
    context = ssl.create_default_context(cafile=trust.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if trust.client_cert_file is not None:
        # The empty password keeps OpenSSL from asking the terminal for one.
        context.load_cert_chain(trust.client_cert_file, trust.client_key_file, password="")
    return context


class TlsContexts:
    """One context per `Trust`, read from its files off the loop when it is first needed."""

    def __init__(self) -> None:
        self._built: dict[Trust, ssl.SSLContext] = {}

    async def get(self, trust: Trust) -> ssl.SSLContext:
        """Raises TransportFault (`tls`); a later call tries again."""
        found = self._built.get(trust)
        if found is None:
            try:
                found = await asyncio.to_thread(build_context, trust)
            except OSError as error:
                detail = error.strerror or "unusable"
                raise TransportFault("tls", f"certificate files: {detail}") from error
            self._built[trust] = found
        return found

    def retain(self, used: Iterable[Trust]) -> None:
        """Forget what no endpoint uses."""
        kept = set(used)
        for trust in self._built.keys() - kept:
            del self._built[trust]

    def __repr__(self) -> str:
        return f"<TlsContexts {len(self._built)} built>"

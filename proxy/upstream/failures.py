"""Foreign exceptions of sockets, names and TLS, mapped to `TransportFault` here and nowhere else.

A fault has a phase out of a closed list (model/ports.py).  What never became a connection is `dns`,
`refused`, `tls`, `connect_timeout` or `blocked_address`; what died afterwards is `eof` or `reset`,
and `tls` where the other side ended it by an alert.
"""

import os
import socket
import ssl

from proxy.model.ports import TransportFault


def while_connecting(error: OSError | ValueError, *, tls: bool) -> TransportFault:
    """Why no connection came to be.  With `tls`, a connection cut in the handshake counts so."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TransportFault("tls", error.verify_message)
    if isinstance(error, ssl.SSLError):
        return TransportFault("tls", _words(error))
    if isinstance(error, socket.gaierror | UnicodeError):
        return TransportFault("dns", _words(error))
    if isinstance(error, TimeoutError):
        return TransportFault("connect_timeout", "no connection in time")
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return TransportFault("tls" if tls else "reset", _words(error))
    return TransportFault("refused", _words(error))


def while_open(error: Exception | None, response_bytes: int) -> TransportFault:
    """Why an open connection died under a request.  None: the other side closed in good order."""
    if error is None:
        return TransportFault("eof", "closed by the endpoint", response_bytes=response_bytes)
    if isinstance(error, ssl.SSLError):
        return TransportFault("tls", _words(error), response_bytes=response_bytes)
    return TransportFault("reset", _words(error), response_bytes=response_bytes)


def _words(error: Exception) -> str:
    """What kind of error it is.  Of a system error the system's words: asyncio's hold addresses."""
    if isinstance(error, ssl.SSLError) and getattr(error, "reason", None):
        return str(error.reason)
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return str(error) or type(error).__name__

"""Foreign exceptions become faults: the table."""

import errno
import socket
import ssl

import pytest

from proxy.upstream.failures import while_connecting, while_open

# fmt: off
CONNECTING = [
    # error                                                    tls    phase
    (ConnectionRefusedError(errno.ECONNREFUSED, "refused"),    False, "refused"),
    (OSError(errno.ENETUNREACH, "unreachable"),                True,  "refused"),
    (OSError(errno.EMFILE, "too many"),                        False, "refused"),
    (socket.gaierror(socket.EAI_NONAME, "no name"),            True,  "dns"),
    (UnicodeError("label empty or too long"),                  False, "dns"),
    (TimeoutError(),                                           True,  "connect_timeout"),
    (TimeoutError(errno.ETIMEDOUT, "timed out"),               False, "connect_timeout"),
    (ConnectionResetError(errno.ECONNRESET, "reset"),          True,  "tls"),
    (ConnectionResetError(errno.ECONNRESET, "reset"),          False, "reset"),
    (ConnectionAbortedError(),                                 True,  "tls"),
    (ssl.SSLError(1, "wrong version"),                         True,  "tls"),
    (ValueError("server_hostname"),                            True,  "refused"),
]
OPEN = [
    (None,                                                     "eof"),
    (ConnectionResetError(errno.ECONNRESET, "reset"),          "reset"),
    (BrokenPipeError(errno.EPIPE, "broken pipe"),              "reset"),
    (OSError(errno.ETIMEDOUT, "timed out"),                    "reset"),
    (ssl.SSLError(1, "alert"),                                 "tls"),
]
# fmt: on


@pytest.mark.parametrize(("error", "tls", "phase"), CONNECTING)
def test_while_connecting(error: OSError | ValueError, tls: bool, phase: str) -> None:
    fault = while_connecting(error, tls=tls)
    assert fault.phase == phase
    assert fault.detail
    assert fault.response_bytes == 0


@pytest.mark.parametrize(("error", "phase"), OPEN)
def test_while_open(error: Exception | None, phase: str) -> None:
    fault = while_open(error, 7)
    assert (fault.phase, fault.response_bytes) == (phase, 7)
    assert fault.detail

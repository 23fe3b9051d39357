"""Every fault a caller can be told about, in one tree.

ProxyError
  CallerFault          the request is at fault
    InvalidRequest 400 · Unreadable 422 · ClientAuth 401 · Forbidden 403 · NoSuchRoute 404
    TooLarge 413 · Blocked 400 · RateLimited 429 · ContextWindow 400
  UpstreamFault        the endpoint is at fault
    UpstreamBroken 502 · UpstreamTimeout 504 · UpstreamAuth 502 · UpstreamRateLimited 429
    UpstreamQuota 503 · ModelMissing 404
  HouseFault           we are at fault
    Overloaded 503 · NoEndpoint 503 · Draining 503 · InternalFault 500

The class carries the public kind, code and status of the OpenAI shape; `wire/errors.py` has the
table kind × dialect (wire.md §8.1).  The message is for the caller: what is wrong, where, and what
to do; never a secret, never the matched text of a guardrail.
"""

from typing import ClassVar


class ProxyError(Exception):
    """A fault with a public face."""

    kind: ClassVar[str] = "internal"
    code: ClassVar[str] = "server_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, retry_after_s: float | None = None, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.public_code = code or self.code
        self.final = False  # the end of a chain: `x-should-retry: false`
        self.told = message  # for events: a provider's words may repeat the prompt

    def quote(self, words: str) -> None:
        """Tell the caller what the provider said; events keep our own words only."""
        if words:
            self.message = f"{self.told.rstrip('.')}: {words}"


class CallerFault(ProxyError):
    """The request is at fault."""


class InvalidRequest(CallerFault):
    """Not JSON, not an object, not UTF-8, or refused by every candidate."""

    kind, code, status = "invalid_request", "invalid_request_error", 400


class Unreadable(CallerFault):
    """JSON, but not this dialect."""

    kind, code, status = "unreadable", "unreadable_request", 422


class ClientAuth(CallerFault):
    """The Parapet key is missing, malformed, unknown, wrong, expired or revoked."""

    kind, code, status = "client_auth", "invalid_api_key", 401


class Forbidden(CallerFault):
    """Role, route, model or tool not allowed; or the path cannot be scanned on a guarded route."""

    kind, code, status = "forbidden", "forbidden", 403


class NoSuchRoute(CallerFault):
    """No route matches; the message names those that the key may use."""

    kind, code, status = "not_found", "model_not_found", 404


class TooLarge(CallerFault):
    """The body is over its limit."""

    kind, code, status = "too_large", "request_too_large", 413


class Blocked(CallerFault):
    """A guardrail blocked the request or the answer.  Never retried, never failed over."""

    kind, code, status = "blocked", "content_filter", 400

    def __init__(
        self, message: str, policy_id: str = "", *, retry_after_s: float | None = None
    ) -> None:
        """`policy_id`: the pack whose rule blocked, which says how it is told."""
        super().__init__(message, retry_after_s=retry_after_s)
        self.policy_id = policy_id


class RateLimited(CallerFault):
    """One of Parapet's own limits."""

    kind, code, status = "rate_limit", "rate_limit_exceeded", 429


class ContextWindow(CallerFault):
    """The prompt is longer than the model's context."""

    kind, code, status = "context_window", "context_length_exceeded", 400


class UpstreamFault(ProxyError):
    """The endpoint is at fault."""


class UpstreamBroken(UpstreamFault):
    """Refused, reset, answered nonsense, or failed with a 5xx of its own."""

    kind, code, status = "upstream", "upstream_error", 502


class UpstreamOverloaded(UpstreamFault):
    """503 or 529 at the end of a chain."""

    kind, code, status = "overloaded", "upstream_overloaded", 503


class UpstreamTimeout(UpstreamFault):
    """The endpoint did not begin, or did not go on, in time."""

    kind, code, status = "timeout", "timeout", 504


class UpstreamAuth(UpstreamFault):
    """The endpoint refused its own credential: never shown to the caller as a 401."""

    kind, code, status = "upstream_auth", "upstream_auth", 502


class UpstreamRateLimited(UpstreamFault):
    """429 of the provider at the end of a chain."""

    kind, code, status = "rate_limit", "upstream_rate_limited", 429


class UpstreamQuota(UpstreamFault):
    """The endpoint's account ran out of money or quota."""

    kind, code, status = "quota", "upstream_quota", 503


class ModelMissing(UpstreamFault):
    """The endpoint does not know the model."""

    kind, code, status = "not_found", "upstream_model_not_found", 404


class HouseFault(ProxyError):
    """We are at fault."""


class Overloaded(HouseFault):
    """More requests in flight than `server.max_in_flight`."""

    kind, code, status = "overloaded", "overloaded", 503


class Draining(HouseFault):
    """The process is stopping."""

    kind, code, status = "overloaded", "draining", 503


class NoEndpoint(HouseFault):
    """No endpoint admits the request."""

    kind, code, status = "no_endpoint", "failover_exhausted", 503


class InternalFault(HouseFault):
    """A bug of ours; the message says only where to look it up."""

    kind, code, status = "internal", "server_error", 500

"""The way to a provider: connections, pools, TLS, names, limits, and the push of answer bytes into
a sink.

It must never know a dialect, a policy or a caller.
"""

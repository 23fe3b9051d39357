"""What goes over the wire on both sides: body grammars (dialects), envelopes (providers), framing,
errors, usage.

Bytes and values in, bytes and values out. It must never open a socket, read a clock or know a
policy.
"""

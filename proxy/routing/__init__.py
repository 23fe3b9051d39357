"""How an attempt is judged and what to do next: pure tables and functions over values.

It must never wait, send or count on its own clock.
"""

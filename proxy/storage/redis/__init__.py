"""The Redis engine: one script a commit, every key in one place, a server that may go away.

In charge of the same port as the SQLite engine, for several machines.  It must never wait longer
than half a second for the server, and never tell a caller that something happened twice.
"""

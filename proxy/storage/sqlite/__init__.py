"""The SQLite engine: one writer thread, group commit, event segments."""

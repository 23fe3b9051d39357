"""What of the configuration file is compared: stamps of its files, and what needs a restart."""

from proxy.settings.load import Loaded


def stamps(loaded: Loaded) -> list[tuple[int, int]]:
    """What tells a changed file: modification time and size of each.  Blocks."""
    found = []
    for path in loaded.files:
        try:
            info = path.stat()
            found.append((info.st_mtime_ns, info.st_size))
        except OSError:
            found.append((0, 0))
    return found


def restart_only(loaded: Loaded) -> dict[str, object]:
    """Settings that a reload cannot change (reliability.md §4.5)."""
    server = loaded.config.server
    return {
        "server.listen": server.listen,
        "server.control_listen": server.control_listen,
        "server.workers": server.workers,
        "server.state_dir": server.state_dir,
        "store": loaded.config.store,
    }


def differing(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return [name for name, value in after.items() if before[name] != value]

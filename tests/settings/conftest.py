"""A place to write configurations in, and to load them with an environment of the test's own."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from proxy.settings.load import Loaded, load_config

Load = Callable[..., Loaded]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write `text` as the configuration and load it; `files` stand beside it."""

    def write_and_load(
        text: str,
        environ: Mapping[str, str] | None = None,
        *,
        insecure: bool = False,
        files: Mapping[str, str] | None = None,
    ) -> Loaded:
        for name, content in (files or {}).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        path = tmp_path / "parapet.yaml"
        path.write_text(text)
        return load_config(path, environ or {}, insecure=insecure)

    return write_and_load

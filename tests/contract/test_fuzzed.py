"""T-API-03: a stranger reads the description and asks everything that it allows, and what it does
not: examples, edges, random requests, and chains of them along the links."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.kit.processes import Parapet, endpoint, running, workspace

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# side by side: phases, cases per operation, threads (the coverage phase knows only one)
RUNS = (("examples,coverage", 10, 1), ("fuzzing,stateful", 25, 2))
CASES = 2000
WITHIN_S = 600  # cases are counted, not seconds: a busy machine asks no less
UNLIMITED = dict.fromkeys(
    ("control_read", "control_write", "ingest", "test", "stream"), 1_000_000
)  # fmt: skip


async def asked(
    parapet: Parapet, phases: str, examples: int, workers: int, home: Path
) -> tuple[int | None, str]:
    """One run of schemathesis: how it ended, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", str(HERE / "schemathesis.toml"), "--no-color"),
        *("run", f"{parapet.control_url}/openapi.json", "--phases", phases),
        *("--header", f"Authorization: Bearer {parapet.admin_key}"),
        *("--max-examples", str(examples), "--workers", str(workers)),
        *("--generation-database", "none"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=home,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(home)},
    )
    try:
        told, _ = await asyncio.wait_for(process.communicate(), WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, told.decode(errors="replace").replace(parapet.admin_key, "***")


@pytest.mark.process
async def test_t_api_03_no_request_finds_a_fault(tmp_path: Path) -> None:
    upstream = endpoint("anthropic-claude", "anthropic", "http://127.0.0.1:9")
    config = workspace([upstream], [{"id": "prod-chat", "endpoint": "anthropic-claude"}])
    config["control"] = {"rate_limits": UNLIMITED}
    homes = [tmp_path / phases for phases, _, _ in RUNS]
    for home in homes:
        home.mkdir()
    async with running(config, tmp_path / "state") as parapet:
        results = await asyncio.gather(
            *(asked(parapet, *run, home) for run, home in zip(RUNS, homes, strict=True))
        )
        cases = 0
        for code, text in results:
            assert code == 0, text
            found = re.search(r"(\d+) generated, (\d+) passed", text)
            assert found is not None, text
            cases += int(found[1])
        assert cases >= CASES
        print(f"{cases} cases")  # noqa: T201
        assert (await parapet.control("GET", "/readyz")).status == 200
        verified = await parapet.control("GET", "/v1/workspaces/default/audit/verify")
        assert verified.json["ok"] is True

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
# Of each sort of operation one: documents of all kinds are handled by the same code.
SOME = (
    "^(ingestRuntime|ingestChange|listEvents|getStatus|listAudit|createDigest|patchIncident"
    "|(create|get|list|delete)(AlertRule|Key|Workspace|Policy|Delivery).*|putDelivery"
    "|patchAlertRule|activatePolicy|rotateKey|addIncidentNote|mergeIncident|evaluatePolicy)$"
)
# side by side: phases, cases per operation, threads (the coverage phase knows only one), which
RUNS = (("examples,coverage", 5, 1, SOME), ("fuzzing,stateful", 10, 2, ".*"))
WHOLE = (("examples,coverage", 10, 1, ".*"), ("fuzzing,stateful", 50, 2, ".*"))
CASES = 2000
WITHIN_S = 1200  # cases are counted, not seconds: a busy machine asks no less
UNLIMITED = dict.fromkeys(
    ("control_read", "control_write", "ingest", "test", "stream"), 1_000_000
)  # fmt: skip


async def asked(
    parapet: Parapet, phases: str, examples: int, workers: int, which: str, home: Path
) -> tuple[int | None, str]:
    """One run of schemathesis: how it ended, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", str(HERE / "schemathesis.toml"), "--no-color"),
        *("run", f"{parapet.control_url}/openapi.json", "--phases", phases),
        *("--header", f"Authorization: Bearer {parapet.admin_key}"),
        *("--max-examples", str(examples), "--workers", str(workers)),
        *("--include-operation-id-regex", which),
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


Runs = tuple[tuple[str, int, int, str], ...]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "runs", [RUNS, pytest.param(WHOLE, marks=pytest.mark.long)], ids=["some", "all"]
)
async def test_t_api_03_no_request_finds_a_fault(tmp_path: Path, runs: Runs) -> None:
    upstream = endpoint("anthropic-claude", "anthropic", "http://127.0.0.1:9")
    config = workspace([upstream], [{"id": "prod-chat", "endpoint": "anthropic-claude"}])
    config["control"] = {"rate_limits": UNLIMITED}
    homes = [tmp_path / phases for phases, *_ in runs]
    for home in homes:
        home.mkdir()
    async with running(config, tmp_path / "state") as parapet:
        results = await asyncio.gather(
            *(asked(parapet, *run, home) for run, home in zip(runs, homes, strict=True))
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

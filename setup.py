"""Builds the hot path as C where that is asked for: `PARAPET_COMPILE=1 pip install .`

mypyc makes an extension of each module below, from the same annotated source and with the same
behaviour; without it the interpreter runs that source.  What is left out is not hot, or mypyc would
leave it to the interpreter anyway (pydantic models).
"""

import os
from pathlib import Path

from setuptools import setup

HOT = {
    "gateway": "account admission answer arguments ask backlog blocks downstream early ends "
    "flights front going handlers heads intake judging noting opening outlet pipeline "
    "reach read relay slices splice stream streamed streaming tell texts threshold "
    "tops turn waiting way whole",
    "guardrails": "automaton context engine external findings fold gates lanestate linear look "
    "matching memo placeholders program redact restoring rules sampling search "
    "signs spans stream view watch whole",
    "guardrails/checks": "digits national secrets steps unicode validators",
    "model": "exchange records",
    "routing": "balance breaker budget choosing effects failover holds latencies match outcomes "
    "recovery rules standing states window",
    "runtime": "ids",
    "spool": "record",
    "telemetry": "metrics",
    "upstream": "origin pool transport transports",
    "wire": "bound eventstream failures headers jsonbody jsonpieces jsonshape leaves mould paths "
    "sse usage",
    "wire/dialects": "*",
    "wire/providers": "*",
}


def sources() -> list[str]:
    floors = [(Path("proxy", floor), names.split()) for floor, names in HOT.items()]
    found = [path for floor, names in floors for name in names for path in floor.glob(f"{name}.py")]
    return [str(path) for path in sorted(found) if path.name != "__init__.py"]


if os.environ.get("PARAPET_COMPILE"):
    from mypyc.build import mypycify  # only a builder has it

    setup(ext_modules=mypycify(sources(), opt_level="2", debug_level="0", multi_file=True))
else:
    setup()

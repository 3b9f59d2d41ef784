"""The server against its own OpenAPI document: whatever the document allows, and what it does not, no answer is a 5xx.

Every day a few cases of each operation are tried; with BOWERBIRD_SCHEMA_CASES=32 (``make schema``) so many, and what
schemathesis calls coverage: more than 2,000 in all.
"""

import json
import os
import re
import subprocess
import sys

from asking import KEY, ask

from bowerbird.serve.app import ENDPOINTS

CASES = int(os.environ.get("BOWERBIRD_SCHEMA_CASES", "0"))
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def test_no_case_of_the_document_is_a_failure_of_the_server(address: str) -> None:
    phases = "examples,coverage,fuzzing" if CASES else "fuzzing"
    done = subprocess.run(
        [
            os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run", f"{address}/openapi.json",
            "-H", f"Authorization: Bearer {KEY}", "--checks", CHECKS, "--phases", phases, "--seed", "1",
            "--max-examples", str(CASES or 2), "--request-timeout", "60", "--generation-database", "none",
        ],
        capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    found = re.search(r"(\d+) generated", done.stdout)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert found is not None and int(found[1]) >= (2000 if CASES else len(ENDPOINTS))
    print(done.stdout[-1500:])


def test_the_document_names_every_address_and_the_runs(address: str) -> None:
    document = json.loads(ask(address, "GET", "/openapi.json")[1])
    assert {(path, method) for path, one in document["paths"].items() for method in one} == {
        (one.path, one.method.lower()) for one in ENDPOINTS
    }
    body = document["paths"]["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "chat" in body["properties"]["model"]["enum"]

"""The server against its own OpenAPI document: whatever the document allows, and what it does not, no answer is a 5xx.

BOWERBIRD_SCHEMA_CASES=50 tries so many cases per operation (``make schema``); the tests of every day try three.
"""

import os
from typing import Any

import pytest
import schemathesis
from asking import KEY, ask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CheckContext
from schemathesis.core.failures import Failure

CASES = int(os.environ.get("BOWERBIRD_SCHEMA_CASES", "3"))

"""The JSON Schema of the findings, and JSON output that was checked against it."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator


@cache
def schema() -> dict[str, Any]:
    """The schema in the package, which is itself checked."""
    text = resources.files("situs").joinpath("data/findings.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    Draft202012Validator.check_schema(found)
    return found


def read_findings(text: str) -> dict[str, Any]:
    """JSON output as an object; `jsonschema.ValidationError` if it does not fit the schema."""
    report: dict[str, Any] = json.loads(text)
    Draft202012Validator(schema()).validate(report)
    return report

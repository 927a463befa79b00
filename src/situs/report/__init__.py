"""The findings of a scan for people and for programs: text, JSON, CSV and pictures."""

from situs.report.findings import (
    CSV_COLUMNS,
    DISCLAIMER,
    SCHEMA,
    format_csv,
    format_json,
    format_text,
    to_json_object,
)

__all__ = [
    "CSV_COLUMNS",
    "DISCLAIMER",
    "SCHEMA",
    "format_csv",
    "format_json",
    "format_text",
    "to_json_object",
]

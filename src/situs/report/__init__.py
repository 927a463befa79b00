"""The findings of a scan for people and for programs: text, JSON, CSV and pictures."""

from situs.report.findings import (
    DISCLAIMER,
    SCHEMA,
    csv_columns,
    format_csv,
    format_json,
    format_text,
    to_json_object,
)

__all__ = [
    "DISCLAIMER",
    "SCHEMA",
    "csv_columns",
    "format_csv",
    "format_json",
    "format_text",
    "to_json_object",
]

"""The OpenAPI description, made from the list of operations and the classes of the contract."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import msgspec

from situs import __version__
from situs.web import schemas
from situs.web.security import API

__all__ = ["Operation", "describe"]

_REFERENCE = "#/components/schemas/"
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
# Schemas that are no classes of the contract.
_OTHERS: dict[str, Any] = {
    "Upload": {
        "type": "object",
        "required": ["files"],
        "properties": {
            "files": {
                **_FILES,
                "description": "A NIfTI, NRRD or MetaImage file, DICOM files, or a zip of them.",
            },
            "series": {"type": "string", "description": "Of several series, the id of one."},
        },
    },
    "RegionsUpload": {
        "type": "object",
        "required": ["files"],
        "properties": {
            "files": {**_FILES, "description": "A mask, a DICOM SEG or RTSTRUCT, or shapes (JSON, CSV)."},
            "threshold": {
                "type": "number",
                "description": "Of a map of probabilities, from which on to take.",
            },
        },
    },
}


@dataclass(frozen=True)
class Operation:
    """What one address does.

    Attributes:
        method: Of HTTP.
        path: The address, with parameters in braces.
        handler: What answers.
        summary: A sentence.
        answers: By status, a class of the contract, the name of a schema, a media type, or None for nothing.
        body: By media type, a class of the contract or the name of a schema.
        query: The parameters after the question mark, each with a sentence.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    summary: str
    answers: dict[int, Any]
    body: dict[str, Any] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)


def describe(operations: Sequence[Operation]) -> dict[str, Any]:
    """The description, OpenAPI 3.1."""
    kinds = [getattr(schemas, name) for name in schemas.__all__]
    _, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE + "{name}")
    paths: dict[str, Any] = {}
    for operation in operations:
        at = paths.setdefault(re.sub(r":\w+}", "}", operation.path), {})
        at[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "situs",
            "version": __version__,
            "description": "Names the anatomical site of lesions in head CT. Research software, not a "
            "medical device. Lengths are in mm, positions RAS+ mm of the scan.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {**components, **_OTHERS, **_findings_schemas()},
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Situs-Token"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    names = [(name, "path", "") for name in re.findall(r"{(\w+)", operation.path)]
    names += [(name, "query", text) for name, text in operation.query.items()]
    needs_token = operation.path.startswith(f"{API}scans")
    if needs_token:
        names.append(("X-Situs-Client", "header", "A random name of the client, 8 to 64 of A-Z a-z 0-9 _ -."))
    found: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": [
            {
                "name": name,
                "in": place,
                "required": place != "query",
                "schema": {"type": "string"},
                **({"description": text} if text else {}),
            }
            for name, place, text in names
        ],
        "responses": {str(status): _answer(kind) for status, kind in operation.answers.items()},
    }
    found["responses"]["default"] = _answer(schemas.Problem)
    if operation.body:
        content = {media: {"schema": _schema(kind)} for media, kind in operation.body.items()}
        found["requestBody"] = {"required": True, "content": content}
    if needs_token:
        found["security"] = [{"token": []}]
    return found


def _answer(kind: Any) -> dict[str, Any]:
    if kind is None:
        return {"description": "Done."}
    if isinstance(kind, str) and "/" in kind:
        return {"description": "The bytes.", "content": {kind: {}}}
    text = (getattr(kind, "__doc__", None) or "The findings.").splitlines()[0]
    return {"description": text, "content": {"application/json": {"schema": _schema(kind)}}}


def _schema(kind: Any) -> dict[str, Any]:
    return {"$ref": _REFERENCE + (kind if isinstance(kind, str) else kind.__name__)}


def _findings_schemas() -> dict[str, Any]:
    """The schema of `situs label --json`, with the id that the server adds."""
    text = resources.files("situs").joinpath("data/findings.schema.json").read_text(encoding="utf-8")
    schema = json.loads(text.replace('"#/$defs/', f'"{_REFERENCE}Findings/$defs/'))
    schema.pop("$schema", None)
    schema["properties"]["id"] = {"type": "string"}
    schema["required"] = [*schema["required"], "id"]
    return {"Findings": schema}

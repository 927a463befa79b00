"""The description is true: it has each route, and answers are as it says."""

import json
import re

import jsonschema
import pytest
from phantoms.web_server import SCANS, running
from starlette.routing import Route

from situs.web.app import OPERATIONS, make_app
from situs.web.openapi import describe


@pytest.fixture(scope="module")
def site():
    with running() as site:
        yield site


@pytest.fixture(scope="module")
def description(site):
    return site.ask("GET", "/api/v1/openapi.json", **{"X-Situs-Token": None}).json


def check(description, name, document):
    """The document is as a schema of the description says."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    jsonschema.validate(document, schema, jsonschema.Draft202012Validator)


def test_each_route_is_described(site, description):
    """All but the page itself and its files."""
    routes = {
        (method.lower(), re.sub(r":\w+}", "}", route.path))
        for route in make_app(site.service).routes
        if isinstance(route, Route)
        for method in route.methods - {"HEAD"}
    }
    told = {(method, path) for path, item in description["paths"].items() for method in item}
    assert routes - told == {("get", "/"), ("get", "/static/report.json"), ("get", "/static/{name}")}
    assert told <= routes
    for path, item in description["paths"].items():
        for operation in item.values():
            named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)) and operation["summary"].endswith(".")


def test_each_reference_leads_to_a_schema(description):
    text = json.dumps(description)
    for reference in set(re.findall(r'"#/([^"]+)"', text)):
        at = description
        for key in reference.split("/"):
            at = at[key]
    assert description["openapi"].startswith("3.1") and describe(OPERATIONS) == description


def test_answers_are_as_described(site, description):
    scan = site.ask("POST", SCANS, {"example": True}).json
    check(description, "ScanMade", scan)
    roi = site.ask("POST", f"{SCANS}/{scan['id']}/rois", {"example": True}).json
    check(description, "RegionsMade", roi)
    found = site.ask("POST", f"{SCANS}/{scan['id']}/findings", {"roi": roi["id"]}).json
    check(description, "Findings", found)
    check(description, "Health", site.ask("GET", "/health").json)
    check(description, "Version", site.ask("GET", "/version").json)
    check(description, "Problem", site.ask("GET", f"{SCANS}/none/image.nii.gz").json)
    with pytest.raises(jsonschema.ValidationError):
        check(description, "Findings", {**found, "findings": [{}]})


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        (
            "RegionsRequest",
            {"shapes": [{"point": [1, 2, 3], "radius_mm": 4}]},
            {"shapes": [{"point": [1, 2]}]},
        ),
        ("RegionsRequest", {"shapes": [{"brush": {"points": [[1, 2, 3]]}}]}, {"shapes": [{"brush": {}}]}),
        ("Example", {"example": True}, {"example": True, "more": 1}),
        ("FindingsRequest", {"roi": "x"}, {"roi": 1}),
    ],
)
def test_requests_are_as_described(site, description, name, right, wrong):
    """What the description allows is not malformed, and what it does not allow is."""
    check(description, name, right)
    with pytest.raises(jsonschema.ValidationError):
        check(description, name, wrong)
    scan = f"{SCANS}/{site.ask('POST', SCANS, {'example': True}).json['id']}"
    path = {"Example": SCANS, "FindingsRequest": f"{scan}/findings", "RegionsRequest": f"{scan}/rois"}[name]
    assert site.ask("POST", path, right).status in (201, 404)
    assert site.ask("POST", path, wrong).status == 400
    site.ask("DELETE", scan)

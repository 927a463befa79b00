"""Who is answered: names of the host, origins, tokens, and clients among themselves."""

import base64
import hashlib

import pytest
from phantoms import small_case
from phantoms.web_server import SCANS, TOKEN, running

from situs.report.html import format_html
from situs.web import app
from situs.web.security import POLICY, Access


@pytest.fixture(scope="module")
def site():
    with running() as site:
        yield site


@pytest.fixture(scope="module")
def scan(site):
    return f"{SCANS}/{site.ask('POST', SCANS, {'example': True}).json['id']}"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:99", "localhost:8080", "LOCALHOST", "[::1]:80"])
def test_names_of_this_computer_are_answered(site, host):
    assert site.ask("GET", "/health", Host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "127.0.0.2", "localhost.", "a@localhost"]
)
@pytest.mark.parametrize("path", ["/health", "/", SCANS])
def test_a_name_that_was_made_to_point_here_is_not(site, host, path):
    answer = site.ask("GET", path, Host=host)
    assert answer.status == 421 and TOKEN not in answer.content.decode() and answer.line


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "file://"]
)
def test_pages_of_other_sites_are_refused(site, origin):
    assert site.ask("POST", SCANS, {"example": True}, Origin=origin).status == 403
    assert site.ask("GET", "/version", Origin=origin).status == 403


@pytest.mark.parametrize("where", ["cross-site", "same-site", "nonsense"])
def test_what_a_browser_says_of_another_site_is_refused(site, where):
    assert site.ask("POST", SCANS, {"example": True}, **{"Sec-Fetch-Site": where}).status == 403


def test_the_own_page_is_answered(site):
    own = {"Origin": f"http://127.0.0.1:{site.port}", "Sec-Fetch-Site": "same-origin"}
    assert site.ask("GET", f"{SCANS}/none/image.nii.gz", **own).status == 404


def test_no_answer_allows_another_origin(site):
    preflight = site.ask("OPTIONS", SCANS, Origin="http://evil.example")
    assert preflight.status == 403
    assert not any(name.startswith("access-control") for name in preflight.headers)


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "ä" * 20])
def test_the_api_needs_the_token(site, token):
    if token is not None:
        token = token.encode()
    answer = site.ask("GET", f"{SCANS}/x/image.nii.gz", **{"X-Situs-Token": token})
    assert answer.status == 401 and "X-Situs-Token" in answer.line


@pytest.mark.parametrize("client", [None, "short", "a" * 65, "with space", "../../etc"])
def test_a_client_has_a_name(site, client):
    answer = site.ask("POST", SCANS, {"example": True}, **{"X-Situs-Client": client})
    assert answer.status == 400 and "X-Situs-Client" in answer.line


def test_a_client_does_not_see_the_scans_of_another(site, scan):
    """Its requests are answered as if the scan were not there."""
    roi = site.ask("POST", f"{scan}/rois", {"example": True}).json["id"]
    made = site.ask("POST", f"{scan}/findings", {"roi": roi}).json["id"]
    for method, path, body in (
        ("GET", "/image.nii.gz", None),
        ("GET", f"/rois/{roi}/mask.nii.gz", None),
        ("GET", f"/findings/{made}.json", None),
        ("POST", "/rois", {"example": True}),
        ("POST", "/findings", {"roi": roi}),
        ("DELETE", "", None),
    ):
        other = site.ask(method, f"{scan}{path}", body, client="client-two")
        never = site.ask(method, f"{SCANS}/AAAA{path}", body, client="client-two")
        assert other.status == never.status == 404
        name = scan.rpartition("/")[2]
        assert other.line.replace(name, "AAAA") == never.line
    assert site.ask("GET", f"{scan}/image.nii.gz").status == 200


def test_regions_of_one_scan_are_not_those_of_another(site, scan):
    roi = site.ask("POST", f"{scan}/rois", {"example": True}).json["id"]
    second = f"{SCANS}/{site.ask('POST', SCANS, {'example': True}).json['id']}"
    assert site.ask("POST", f"{second}/findings", {"roi": roi}).status == 404


@pytest.mark.parametrize(
    "path", ["/", "/health", SCANS, "/nowhere", "/static/report.json", "/api/v1/openapi.json"]
)
def test_each_answer_has_the_headers_that_protect_it(site, path):
    headers = site.ask("GET", path).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer" and "server" not in headers


def test_the_policy_allows_what_comes_from_here_and_the_style_sheet_of_the_report():
    """The hash is that of the style sheet of a report, which a tab that the page opens shows."""
    style = format_html(small_case.volume(), [], []).partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert POLICY.split("; ") == [
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' 'sha256-{digest}'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]


def test_the_page_gets_the_token_on_this_computer_alone(site, monkeypatch, tmp_path):
    (tmp_path / "index.html").write_text("<p>{{token}}</p>")
    monkeypatch.setattr(app, "STATIC", tmp_path)
    assert site.ask("GET", "/").content.decode() == f"<p>{TOKEN}</p>"
    with running(is_local=False, host="0.0.0.0") as public:
        assert public.ask("GET", "/").content == b"<p></p>"
        assert public.ask("GET", SCANS, **{"X-Situs-Token": None}).status == 401


def test_a_public_address_answers_to_itself():
    named = Access(TOKEN, "10.1.2.3", is_local=False)
    assert named.answers_to("10.1.2.3:8080") and not named.answers_to("localhost:8080")
    assert Access(TOKEN, "fe80::1", is_local=False).answers_to("[fe80::1]:8080")
    assert Access(TOKEN, "0.0.0.0", is_local=False).answers_to("anything.example")


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", SCANS), ("GET", SCANS), ("DELETE", "/health"), ("PATCH", "/"), ("POST", "/")]
)
def test_a_wrong_method_is_named(site, method, path):
    answer = site.ask(method, path)
    assert answer.status == 405 and method in answer.line and answer.headers["allow"]


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/api/v1/nowhere",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "//etc/passwd",
        "/static/index.html/x",
        "/static//etc/passwd",
        "/static/",
        f"{SCANS}/",
        "/static/%00",
        f"{SCANS}/%2e%2e/image.nii.gz",
    ],
)
def test_there_is_nothing_at_other_addresses(site, path):
    answer = site.ask("GET", path)
    assert answer.status == 404 and answer.line

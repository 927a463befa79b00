"""The routes: what each address takes and answers. All of them are listed in `OPERATIONS`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from situs import __version__
from situs.report.html import own_texts
from situs.web import schemas, viewer, work
from situs.web.answers import json_answer, problem
from situs.web.faults import answer_fault
from situs.web.findings import Watch, label_regions, stream_findings
from situs.web.openapi import Operation, describe
from situs.web.security import API, Guard
from situs.web.service import Service
from situs.web.store import Held, NotFoundError, pick
from situs.web.uploads import RequestError, Upload, read_json_bytes, read_upload

__all__ = ["OPERATIONS", "make_app"]

STATIC = Path(__file__).with_name("static")
_TOKEN_MARK = "{{token}}"
_SWEEP_S = 15.0
_PNG = "image/png"
_NIFTI = "application/gzip"

Handler = Callable[[Service, Request], Any]


def make_app(service: Service) -> Starlette:
    """The application of a service."""

    def endpoint(handler: Handler) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            try:
                return await handler(service, request)
            except Exception as error:
                return answer_fault(error)

        return answer

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        lines = {
            404: "there is nothing at this address",
            405: f"{request.method} is not among the methods of it",
        }
        answer = problem(error.status_code, lines.get(error.status_code, error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(_drop_old(service))
        try:
            yield
        finally:
            sweeper.cancel()
            service.store.clear()

    routes: list[BaseRoute] = [
        Route(operation.path, endpoint(operation.handler), methods=[operation.method])
        for operation in OPERATIONS
    ]
    routes += [
        Route("/", endpoint(_page)),
        Route("/static/report.json", endpoint(_texts)),
        Route("/static/{name:path}", endpoint(_static)),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, access=service.access)],
        exception_handlers={HTTPException: refused},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


async def _drop_old(service: Service) -> None:
    while True:
        await asyncio.sleep(min(_SWEEP_S, service.limits.keep_s / 4))
        service.store.drop_old()


async def _page(service: Service, request: Request) -> Response:
    token = service.access.token if service.access.is_local else ""
    return HTMLResponse((STATIC / "index.html").read_text(encoding="utf-8").replace(_TOKEN_MARK, token))


async def _texts(service: Service, request: Request) -> Response:
    """The words of reports, and the names that only the bundle's own list of sites has."""
    return json_answer(own_texts(service.labeler.bundle.sites) | service.texts)


async def _static(service: Service, request: Request) -> Response:
    """A file of the page, of those that there are: a name leads nowhere else."""
    files = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.is_file()}
    name = request.path_params["name"]
    if name not in files:
        raise NotFoundError(f"the page has no file {name[:50]!r}")
    return FileResponse(files[name])


async def _openapi(service: Service, request: Request) -> Response:
    return json_answer(describe(OPERATIONS))


async def _health(service: Service, request: Request) -> Response:
    return json_answer(schemas.Health())


async def _version(service: Service, request: Request) -> Response:
    bundle = service.labeler.bundle
    return json_answer(schemas.Version(__version__, bundle.name, bundle.version))


async def _post_scan(service: Service, request: Request) -> Response:
    client = _client(request)
    with service.store.room(client):
        if _is_json(request):
            await _body(service, request, schemas.Example)
            scan = await service.workers.run(work.read_example)
        else:
            async with _received(service, request) as upload:
                series = upload.fields.get("series") or None
                scan = await service.workers.run(work.read_scan, upload.path, series)
        name = service.store.add(client, scan)
    geometry = scan.volume.geometry
    gaps = geometry.slice_gaps_mm
    made = schemas.ScanMade(
        id=name,
        slices=geometry.shape[2],
        shape=geometry.shape,
        voxel_mm=(*geometry.spacing_mm, float(gaps.mean()) if gaps.size else 1.0),
        notes=[*scan.volume.assumptions, *map(str, scan.volume.doubts)],
        expires_in_s=round(service.limits.keep_s),
    )
    return json_answer(made, 201)


async def _get_image(service: Service, request: Request) -> Response:
    volume = _held(service, request).scan.volume
    return Response(await service.workers.run(viewer.scan_file, volume), media_type=_NIFTI)


async def _delete_scan(service: Service, request: Request) -> Response:
    service.store.remove(_client(request), request.path_params["scan"])
    return Response(status_code=204)


async def _post_regions(service: Service, request: Request) -> Response:
    held = _held(service, request)
    if _is_json(request):
        asked = await _body(service, request, schemas.RegionsRequest)
        regions = await service.workers.run(work.read_asked, asked, held.scan, service.folder)
    else:
        async with _received(service, request) as upload:
            threshold = _number(upload.fields.get("threshold", ""))
            regions = await service.workers.run(work.read_regions, upload.path, held.scan, threshold)
    name = service.store.keep(held.regions, regions)
    return json_answer(schemas.RegionsMade(name, len(regions.lesions) + len(regions.outside)), 201)


async def _get_mask(service: Service, request: Request) -> Response:
    held = _held(service, request)
    regions = pick(held.regions, request.path_params["roi"], "regions")
    content = await service.workers.run(viewer.mask_file, held.scan.volume, regions.lesions)
    return Response(content, media_type=_NIFTI)


async def _post_findings(service: Service, request: Request) -> Response:
    held = _held(service, request)
    asked = await _body(service, request, schemas.FindingsRequest)
    regions = pick(held.regions, asked.roi, "regions")
    if "text/event-stream" in request.headers.get("accept", ""):
        return StreamingResponse(stream_findings(service, held, regions), media_type="text/event-stream")
    return json_answer(await label_regions(service, held, regions, Watch(service.limits)), 201)


async def _get_findings(service: Service, request: Request) -> Response:
    labelled = pick(_held(service, request).findings, request.path_params["findings"], "findings")
    kind = request.path_params["kind"]
    bundle = service.labeler.bundle
    if kind == "png":
        number = _number(request.query_params.get("lesion", "1"))
        return await _picture(service, work.lesion_picture, labelled, int(number or 0))
    if kind not in work.FORMATS:
        raise NotFoundError(f"there are no findings as .{kind[:10]}: ask for png, {', '.join(work.FORMATS)}")
    media, form = work.FORMATS[kind]
    content = await service.workers.run(form, labelled, bundle, service.texts)
    name = {"content-disposition": f'attachment; filename="findings.{kind}"'}
    return Response(content, media_type=media, headers=name)


async def _get_references(service: Service, request: Request) -> Response:
    labelled = pick(_held(service, request).findings, request.path_params["findings"], "findings")
    return await _picture(service, work.reference_strip, labelled, request.path_params["lesion"])


async def _picture(
    service: Service, draw: Callable[..., bytes | None], labelled: work.Labelled, number: int
) -> Response:
    content = await service.workers.run(draw, labelled, number, service.labeler.bundle)
    if content is None:
        raise NotFoundError(f"there is no picture of lesion {number}")
    return Response(content, media_type=_PNG)


def _client(request: Request) -> str:
    return request.headers["x-situs-client"]


def _held(service: Service, request: Request) -> Held:
    return service.store.find(_client(request), request.path_params["scan"])


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


async def _body(service: Service, request: Request, kind: type[Any]) -> Any:
    """The JSON of a request as one of the contract's classes."""
    if not _is_json(request):
        raise RequestError(415, "expected Content-Type: application/json")
    return msgspec.json.decode(await read_json_bytes(request, service.limits), type=kind)


def _number(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise RequestError(400, f"expected a number, got {text[:20]!r}") from error


@asynccontextmanager
async def _received(service: Service, request: Request) -> AsyncIterator[Upload]:
    """The files of a request, in a folder that is removed afterwards; no error names the folder."""
    if service.uploads >= service.limits.uploads:
        raise RequestError(503, "too many uploads at the same time: try again in a few seconds")
    service.uploads += 1
    try:
        with tempfile.TemporaryDirectory(dir=service.folder) as private:
            folder = Path(private, "scan")
            folder.mkdir()
            with work.without_folder(folder):
                yield await read_upload(request, folder, service.limits)
    finally:
        service.uploads -= 1


OPERATIONS = (
    Operation(
        "POST", f"{API}scans", _post_scan,
        "Send a scan, or ask for the example scan. Its files are read and removed.",
        body={"multipart/form-data": "Upload", "application/json": schemas.Example},
        answers={201: schemas.ScanMade, 409: schemas.SeveralSeries},
    ),
    Operation(
        "GET", f"{API}scans/{{scan}}/image.nii.gz", _get_image,
        "The scan for a viewer: int16 HU, its slices evenly spaced.", answers={200: _NIFTI},
    ),
    Operation("DELETE", f"{API}scans/{{scan}}", _delete_scan, "Drop a scan now.", answers={204: None}),
    Operation(
        "POST", f"{API}scans/{{scan}}/rois", _post_regions,
        "Send regions of interest, ask for those of the example, or draw shapes.",
        body={"multipart/form-data": "RegionsUpload", "application/json": schemas.RegionsRequest},
        answers={201: schemas.RegionsMade},
    ),
    Operation(
        "GET", f"{API}scans/{{scan}}/rois/{{roi}}/mask.nii.gz", _get_mask,
        "The lesions on the grid of the image, as values from 1 in the order of the findings.",
        answers={200: _NIFTI},
    ),
    Operation(
        "POST", f"{API}scans/{{scan}}/findings", _post_findings,
        "Label the lesions. With 'Accept: text/event-stream': events 'progress', then 'findings' or 'error'.",
        body={"application/json": schemas.FindingsRequest},
        answers={201: "Findings", 200: "text/event-stream"},
    ),
    Operation(
        "GET", f"{API}scans/{{scan}}/findings/{{findings}}.{{kind}}", _get_findings,
        "The findings as json, csv, html, dcm (Structured Report), or a picture of one lesion as png.",
        answers={200: "*/*"}, query={"lesion": "Of png: which lesion, from 1."},
    ),
    Operation(
        "GET", f"{API}scans/{{scan}}/findings/{{findings}}/references/{{lesion:int}}.png", _get_references,
        "The references that a lesion, counted from 1, is compared with.", answers={200: _PNG},
    ),
    Operation("GET", f"{API}openapi.json", _openapi, "This description.", answers={200: "application/json"}),
    Operation("GET", "/health", _health, "Whether the server answers.", answers={200: schemas.Health}),
    Operation("GET", "/version", _version, "What answers.", answers={200: schemas.Version}),
)  # fmt: skip

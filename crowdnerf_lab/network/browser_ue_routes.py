"""The browser as a UE, without a notebook: /ue is a page that joins an event, downloads a model and draws by itself.

Its files were built from web/src/ue and lie in the package. The page may load what comes from here and nothing else
(Content-Security-Policy); it is cross-origin isolated, which gives WebAssembly its threads.
"""

import hashlib
from dataclasses import asdict
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.responses import HTMLResponse

from crowdnerf_lab.network.api.problems import Problem, declared
from crowdnerf_lab.network.links.link_profiles import LINKS
from crowdnerf_lab.network.models.negotiation import matches
from crowdnerf_lab.widgets.built import RUNTIME, built_file

PAGE = "ue_page.html"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".gz": "application/gzip"}
FILES = ("ue_page.js", "ue_page.css", RUNTIME)
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src blob:",  # the student's worker is part of the script, and started from a Blob
        "connect-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
router = APIRouter(tags=["browser"])


class LinkDocument(BaseModel):
    """A link that the page can simulate; see network.links.link_profiles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    down_mbit_s: float
    up_mbit_s: float
    rtt_ms: float
    jitter_ms: float
    loss: float
    burst: float
    source: str


@router.get(
    "/ue",
    operation_id="browser_ue",
    response_class=HTMLResponse,
    responses={200: {"description": "The page; ?event=NAME says which event it joins."}},
)
async def browser_ue() -> Response:
    """A page that makes the browser a UE."""
    return Response(_built(PAGE)[0], media_type="text/html", headers=HEADERS)


@router.get("/ue/links", operation_id="browser_ue_links")
async def browser_ue_links() -> tuple[LinkDocument, ...]:
    """The links that the page can simulate."""
    return tuple(LinkDocument(**asdict(profile)) for profile in LINKS.values())


@router.get(
    "/ue/{file}",
    operation_id="browser_ue_file",
    response_class=Response,
    responses=declared(404, 422)
    | {
        200: {"description": "The file.", "content": {kind: {} for kind in MEDIA_TYPES.values()}},
        304: {"description": "The browser has it already."},
    },
)
async def browser_ue_file(
    request: Request, file: Annotated[str, Path(max_length=64, description="Of the page's files.")]
) -> Response:
    """A file of the page; what is gzip'd in the package is sent so, and unpacked by the page."""
    if file not in FILES:
        raise Problem(404, "Not Found", f"the page has no file {file!r:.80}; it has {', '.join(FILES)}")
    content, tag = _built(file)
    headers = HEADERS | {"ETag": tag}
    if matches(request.headers.get("if-none-match", ""), [tag], weakly=True):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=MEDIA_TYPES[PurePosixPath(file).suffix], headers=headers)


@lru_cache
def _built(name: str) -> tuple[bytes, str]:
    """A built file and its entity tag; read once, for a running service does not change."""
    content = built_file(name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'

"""The route of what a browser runs of an artefact."""

from fastapi import APIRouter, Request, Response

from crowdnerf_lab.network.api.context import CallingMember, service_of
from crowdnerf_lab.network.api.problems import Problem, declared
from crowdnerf_lab.network.models.models_routes import (
    READ,
    NamedArtefact,
    VersionNumber,
    given_out,
    model_of,
    named,
    sent,
)

PATIENCE_S = 30.0
"""How long a browser waits for what is being made; it may ask again."""
AGAIN_S = 5
router = APIRouter(tags=["models"])


@router.get(
    "/events/{event}/versions/{number}/artefacts/{name}/browser",
    operation_id="download_browser_model",
    response_class=Response,
    responses=READ
    | declared(406, 410, 412, 416, 503)
    | {
        200: {
            "description": "An ONNX graph, or, of a baked field, its quantized rows.",
            "content": {"application/octet-stream": {}},
        },
        206: {"description": "The ranges that were asked for.", "content": {"application/octet-stream": {}}},
        304: {"description": "The browser has it already."},
    },
)
async def download_browser_model(
    caller: CallingMember, request: Request, number: VersionNumber, name: NamedArtefact
) -> Response:
    """What a browser runs of an artefact, decoded here. It never changes, and is gzip'd for those who accept that."""
    service = service_of(request)
    offer = named(await given_out(service, caller.event, number), name)
    model = model_of(offer)
    file = await service.browser_models.of(offer.artefact, model, wait_s=PATIENCE_S)
    if file is not None:
        return await sent(service, request, file, coded=service.browser_models)
    if service.browser_models.under_way(model):
        headers = {"Retry-After": str(AGAIN_S)}
        raise Problem(503, "Service Unavailable", f"{name} is being prepared for browsers; ask again", headers=headers)
    detail = f"no browser can run {name}; take another artefact, or ask the network for views"
    raise Problem(404, "Not Found", detail, kind="no-browser-model")

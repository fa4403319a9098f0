"""A UE's contributions over HTTP: what became of each, and to be forgotten with all of them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from crowdnerf_lab.network.api.context import CallingUE, CurrentService
from crowdnerf_lab.network.api.problems import PROBLEMS, declared
from crowdnerf_lab.network.uploads.contributions import Contribution, Contributions
from crowdnerf_lab.network.uploads.uploads import Upload, Uploads

router = APIRouter(prefix="/events/{event}/contributions", tags=["contributions"])


class ContributionStatus(BaseModel):
    """One photo or clip and what became of it.

    receiving: bytes are missing; received: complete, verified, safe; taken_in: screened and anonymised; published: a
    version of the event's models has learned from it; refused: `reason` says why; forgotten: nothing is left of it.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    state: Literal["receiving", "received", "taken_in", "published", "refused", "forgotten"]
    media_type: str
    bytes: int = Field(ge=1, description="Of the whole file.")
    offset: int = Field(ge=0, description="Bytes that are safe.")
    sha256: str | None = Field(default=None, description="Of the file, hexadecimal; announced, while receiving.")
    since: float = Field(description="Unix time at which it was complete; while receiving, at which it began.")
    reason: str | None = None
    version: int | None = Field(default=None, description="The first version that learned from it.")


class ContributionList(BaseModel):
    """All that a UE has sent or is sending, oldest first."""

    contributions: tuple[ContributionStatus, ...]


class ForgottenStatus(BaseModel):
    """What forgetting did at once; models that learned from it are withdrawn or trained anew by the pipeline."""

    contributions: int = Field(ge=0, description="That are marked as forgotten by this request.")
    bytes: int = Field(ge=0, description="That had not been taken in yet, and are gone.")


@router.get("", operation_id="list_contributions", responses=PROBLEMS)
def of_mine(service: CurrentService, caller: CallingUE) -> ContributionList:
    """What became of everything that I sent."""
    complete = Contributions(service.database).of(caller.event, caller.ue)
    unfinished = Uploads(service.database, service.settings).unfinished(caller.event, caller.ue)
    statuses = [_of_contribution(each) for each in complete] + [_of_upload(each) for each in unfinished]
    return ContributionList(contributions=tuple(statuses))


@router.get("/{id}", operation_id="read_contribution", responses=PROBLEMS | declared(410))
def one_of_mine(
    id: Annotated[str, Path(description="That of its upload.")], service: CurrentService, caller: CallingUE
) -> ContributionStatus:
    """What became of one photo or clip that I sent."""
    found = Contributions(service.database).one(id)
    if found is not None and (found.event, found.ue) == (caller.event, caller.ue):
        return _of_contribution(found)
    return _of_upload(Uploads(service.database, service.settings).one(caller.event, caller.ue, id=id))


@router.delete("", operation_id="forget_contributions", responses=PROBLEMS)
def forget_mine(service: CurrentService, caller: CallingUE) -> ForgottenStatus:
    """Forget me: everything I sent to this event, and what was learned from it. This pseudonym takes part no more."""
    done = Contributions(service.database).forget(caller.event, caller.ue)
    return ForgottenStatus(contributions=done.contributions, bytes=done.bytes)


def _of_contribution(contribution: Contribution) -> ContributionStatus:
    return ContributionStatus(
        id=contribution.id,
        state=contribution.state,
        media_type=contribution.media_type,
        bytes=contribution.bytes,
        offset=contribution.bytes,
        sha256=contribution.sha256 or None,
        since=contribution.received,
        reason=contribution.reason,
        version=contribution.version,
    )


def _of_upload(upload: Upload) -> ContributionStatus:
    return ContributionStatus(
        id=upload.id,
        state="receiving",
        media_type=upload.media_type,
        bytes=upload.length,
        offset=upload.offset,
        sha256=upload.sha256,
        since=upload.created,
    )

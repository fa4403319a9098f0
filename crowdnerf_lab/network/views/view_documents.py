"""What UEs send to be shown a view, checked: one request over HTTP, or one pose after another over a WebSocket."""

import json
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crowdnerf_lab.findings import first_finding
from crowdnerf_lab.network.api.whole_numbers import WHOLE
from crowdnerf_lab.network.views.view_codecs import Format
from crowdnerf_lab.network.views.view_request import ViewError, ViewRequest

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Row = Annotated[list[Number], Field(min_length=4, max_length=4)]
Side = Annotated[int, WHOLE, Field(ge=1, le=16383)]
NEUTRAL_POSE = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]


class ViewDocument(BaseModel):
    """The view that is asked for, of an ideal camera with OpenCV's axes (x right, y down, z forward).

    camera_to_world: rotation and position (metres), 3 x 4. focal, centre: pixels of the size asked for. quality: the
    codec's own scale. deadline_ms: after which the view is of no use; what cannot be in time is made smaller, then
    refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera_to_world: Annotated[list[Row], Field(min_length=3, max_length=3, examples=[NEUTRAL_POSE])]
    focal: Annotated[list[Number], Field(min_length=2, max_length=2, examples=[[230.0, 230.0]])]
    centre: Annotated[list[Number], Field(min_length=2, max_length=2, examples=[[128.0, 96.0]])]
    width: Annotated[Side, Field(examples=[256])]
    height: Annotated[Side, Field(examples=[192])]
    format: Format = "webp"
    quality: Annotated[int, WHOLE, Field(ge=1, le=100)] = 80
    deadline_ms: Annotated[Number, Field(gt=0, le=60_000)] | None = None

    def request(self) -> ViewRequest:
        """What the engine is asked. Rotations are taken as they come; the engine refuses what is none."""
        return ViewRequest(
            np.array(self.camera_to_world, np.float64),
            focal=(self.focal[0], self.focal[1]),
            centre=(self.centre[0], self.centre[1]),
            width=self.width,
            height=self.height,
        )


class PoseDocument(ViewDocument):
    """One pose of a moving camera. sequence: the client's number, given back with the view (by default the poses are
    counted from 1). frames_per_s: that it wants to be shown; views become smaller to keep up with it (by default
    they keep the size asked for, as far as they are in time)."""

    sequence: Annotated[int, WHOLE, Field(ge=0, le=2**53 - 1)] | None = None
    frames_per_s: Annotated[Number, Field(gt=0, le=240)] | None = None


class TokenMessage(BaseModel):
    """The first message of a stream whose client cannot send an Authorization header: a browser."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: Annotated[str, Field(min_length=1, max_length=4096)]


def read_pose(text: str) -> PoseDocument:
    """A message of a stream as a pose. Raises ViewError saying what is wrong with it."""
    try:
        return PoseDocument.model_validate(_parsed(text))
    except ValidationError as error:
        raise ViewError(f"the message is no pose: {first_finding(error)}") from error


def read_token(text: str) -> str:
    """The token in the first message of a stream. Raises ViewError when there is none."""
    try:
        return TokenMessage.model_validate(_parsed(text)).token
    except ValidationError as error:
        raise ViewError('without an Authorization header the first message must be {"token": "..."}') from error


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ViewError("the message is not JSON; send one object as text") from error

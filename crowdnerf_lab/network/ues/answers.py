"""What the network answers a UE, checked before it is used: shapes, sizes, and where its links lead.

A UE trusts nothing that it did not measure itself: a file is what its card's SHA-256 says, a link leads to the service
that was asked, and no answer is longer than what was agreed.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urljoin, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crowdnerf_lab.catalogue.card import FileName, ModelCard, Sha256
from crowdnerf_lab.findings import first_finding

Model = TypeVar("Model", bound=BaseModel)
LONGEST_TEXT = 400
"""Characters of a server's own words that an error repeats."""
LONGEST_WAIT_S = 3600.0


class NetworkError(OSError):
    """The network gave no usable answer; the message says what was asked, what came, and what to do."""


class RefusedError(NetworkError):
    """The service said no, with an HTTP status and, where it gave one, a problem document (RFC 9457)."""

    def __init__(self, message: str, *, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s


class TokenEndedError(RefusedError):
    """The UE's token is missing, has expired, or was revoked; only joining the event again helps."""


class UntrustedAnswerError(NetworkError):
    """An answer that breaks what was agreed: a wrong size or checksum, a link that leads elsewhere; nothing is kept."""


class _Answer(BaseModel):
    """A newer service may say more; what this package does not know is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Joined(_Answer):
    """What joining an event, or renewing its token, gives a UE."""

    ue: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
    token: Annotated[str, Field(pattern=r"^[A-Za-z0-9._~+/=-]{8,4096}$")]
    expires: datetime

    @property
    def expires_s(self) -> float:
        """Unix time at which the token ends."""
        moment = self.expires if self.expires.tzinfo else self.expires.replace(tzinfo=UTC)
        return moment.timestamp()


class OfferedFile(_Answer):
    """One file of an offered model and where to fetch it."""

    path: FileName
    bytes: int = Field(ge=1)
    sha256: Sha256
    href: str = Field(min_length=1, max_length=4096)


class OfferedDelta(_Answer):
    """What turns the model file of version `since` into the offered one."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    since: int = Field(ge=1, alias="from")
    bytes: int = Field(ge=1)
    href: str = Field(min_length=1, max_length=4096)


class Offer(_Answer):
    """A model that the network offers this UE."""

    name: str
    card: ModelCard
    files: tuple[OfferedFile, ...] = Field(min_length=1)
    delta: OfferedDelta | None = None

    @model_validator(mode="after")
    def _agrees_with_its_card(self) -> "Offer":
        if self.name != self.card.name:
            raise ValueError(f"{self.name!r} is offered with the card of {self.card.name!r}")
        offered = {file.path: (file.bytes, file.sha256) for file in self.files}
        for file in self.card.files:
            if offered.get(file.path) != (file.bytes, file.sha256):
                raise ValueError(f"{file.path} of {self.name} is not offered as its card lists it")
        return self

    @property
    def model(self) -> OfferedFile:
        """The file to load."""
        return next(file for file in self.files if file.path == self.card.model)


class SelectAnswer(_Answer):
    """Which models the network offers a UE of this capability, and why; none: ask the network for views."""

    version: int | None = Field(default=None, ge=1)
    artefacts: tuple[Offer, ...] = ()
    reason: str = ""
    inference: Literal["device", "network"] | None = None


class LatestVersion(_Answer):
    """The number of an event's newest version."""

    version: Annotated[int, Field(ge=1)]

    @model_validator(mode="before")
    @classmethod
    def _by_either_name(cls, document: Any) -> Any:
        if isinstance(document, dict) and "version" not in document and "number" in document:
            return document | {"version": document["number"]}
        return document


class ContributionStatus(_Answer):
    """What became of a photo or clip: receiving, received, taken_in, published, refused (with its reason), forgotten.

    version: the first one of the event's models that learned from it.
    """

    id: Annotated[str, Field(min_length=1, max_length=256)]
    state: Annotated[str, Field(max_length=64)]
    bytes: int | None = None
    reason: str | None = None
    version: int | None = None


def read_answer(model: type[Model], content: bytes, *, asked: str) -> Model:
    """An answer as the shape it must have. Raises UntrustedAnswerError naming the field."""
    try:
        return model.model_validate(json.loads(content))
    except ValidationError as error:
        raise UntrustedAnswerError(f"{asked}: the service's answer is malformed: {first_finding(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UntrustedAnswerError(f"{asked}: the service's answer is no JSON ({error}); is this its URL?") from error


def refusal_of(status: int, headers: Mapping[str, str], content: bytes, *, asked: str) -> RefusedError:
    """The error that an answer of status 400 or more stands for, in the service's own words where it has any."""
    title, detail = f"status {status}", ""
    try:
        document = json.loads(content)
        title, detail = str(document.get("title") or title), str(document.get("detail") or "")
    except (ValueError, AttributeError, RecursionError):
        pass  # no problem document: a proxy or another server answered, and its status must do
    words = printable(f"{title}: {detail}" if detail else title)
    wait_s = retry_after_s(headers.get("retry-after"))
    if status == 401:
        return TokenEndedError(
            f"{asked}: {words}; the token has expired or was revoked, join the event again", status=status
        )
    again = "" if wait_s is None else f"; ask again in {wait_s:g} s"
    return RefusedError(f"{asked}: {words} ({status}){again}", status=status, retry_after_s=wait_s)


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date), at most LONGEST_WAIT_S."""
    if value is None:
        return None
    try:
        wait = float(value) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()) else _seconds_until(value)
    except (TypeError, ValueError):
        return None
    return min(max(wait, 0.0), LONGEST_WAIT_S)


def _seconds_until(date: str) -> float:
    moment = parsedate_to_datetime(date)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime.now(UTC)).total_seconds()


def link_within(url: str, href: str) -> str:
    """Where a link of an answer from `url` leads, which must be the same service: a token is sent there.

    Raises UntrustedAnswerError for another scheme, host or port.
    """
    target = urljoin(url, href)
    if _origin(target) != _origin(url):
        raise UntrustedAnswerError(f"{url} sent a link that leads elsewhere ({printable(href)}); it is not followed")
    return target


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None


def printable(text: str) -> str:
    """A server's own words, shortened, on one line, without characters that could steer a terminal."""
    shown = "".join(character if character.isprintable() else " " for character in text[: LONGEST_TEXT + 1])
    return shown if len(shown) <= LONGEST_TEXT else f"{shown[:LONGEST_TEXT]}…"

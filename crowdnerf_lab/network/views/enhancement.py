"""A UE's own photo, enhanced by the crowd's field: `python -m crowdnerf_lab.network.views.enhancement HOME EVENT ID`.

The media went up, the network infers, the result comes down. It takes seconds of training code (torch), so that a
process of its own does it, at a low priority, and says on standard output what came of it (`view_messages`): the
picture as JPEG, or why there is none. Nothing is kept: who wants to be forgotten leaves nothing behind here.
"""

import math
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from crowdnerf_lab.captures.bundle import Photo
from crowdnerf_lab.captures.photos import PhotoError, read_photo
from crowdnerf_lab.captures.poses.given_poses import camera_of
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.enhanced_views import enhanced_view
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.updates.event_folder import EventFolder
from crowdnerf_lab.network.updates.intake import captures_of, photos_of
from crowdnerf_lab.network.uploads.contributions import Contributions
from crowdnerf_lab.network.views.view_codecs import MEDIA_TYPES, encode_picture
from crowdnerf_lab.network.views.view_messages import Message, packed
from crowdnerf_lab.refinement import Learned
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import area_resized

LONGEST_SIDE = 640
"""Pixels of the enhanced picture: rays are marched through the field as it was trained, which takes seconds."""
QUALITY = 90
NICENESS = 15


class EnhancementError(ValueError):
    """A photo that cannot be enhanced (yet); the message says why."""


def enhanced_photo(home: Path, event: str, contribution: str) -> Message:
    """The enhanced photo of a contribution as JPEG; the header says width, height and version.

    Raises EnhancementError when there is no photo, no camera or no field for it.
    """
    found = Contributions(Database(home)).one(contribution)
    folder = EventFolder(home, event)
    captures = captures_of(folder)
    if found is None or found.state not in ("taken_in", "published") or captures is None:
        raise EnhancementError("the contribution is not among the event's photos")
    photos = {photo.file: photo for photo in captures.photos}
    files = sorted(photos_of(found, photos))
    chosen = next((photos[file] for file in files if photos[file].camera is not None), None)
    if chosen is None:
        raise EnhancementError("where the photo was taken from is unknown; send its camera with it")
    published = folder.published(Catalogue(home / "catalogue"))
    if not published:
        raise EnhancementError("the event has no version yet that a photo can be enhanced by")
    outcome = published[0].outcome
    assert outcome is not None
    picture = _enhanced(chosen, captures.path_of(chosen.file), Learned.load(published[0].folder), ue=found.ue)
    height, width = picture.shape[:2]
    content = encode_picture(picture.numpy(), format="jpeg", quality=QUALITY)
    header = {"media_type": MEDIA_TYPES["jpeg"], "width": width, "height": height, "version": outcome.version}
    return Message(header, content)


def _enhanced(photo: Photo, path: Path, learned: Learned, *, ue: str) -> torch.Tensor:
    """The photo [h w 3], at most LONGEST_SIDE long, enhanced by the field as the phone's lens saw it."""
    assert photo.camera is not None
    scale = max(1, math.ceil(max(photo.width, photo.height) / LONGEST_SIDE))
    width, height = max(1, photo.width // scale), max(1, photo.height // scale)
    taken = area_resized(read_photo(path), width, height).to(torch.float32) / 255
    camera = camera_of(photo.camera, width=photo.width, height=photo.height).resized(width, height)
    appearance, vignette, shoulder = learned.appearance, 0.0, 0.0
    if appearance is not None:
        shoulder = float(appearance.shoulder.detach())
        vignette = float(appearance.vignette[learned.captures.index(ue)].detach()) if ue in learned.captures else 0.0
    view = enhanced_view(taken, render_view(learned.field, camera), shoulder=shoulder, vignette=vignette)
    return (view.image * 255).round().to(torch.uint8)


def main(arguments: Sequence[str]) -> None:
    """Write the message on standard output. Ends with its standard input, which is its parent's to close."""
    home, event, contribution = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_input, daemon=True).start()
    os.nice(NICENESS)
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    try:
        message = enhanced_photo(Path(home), event, contribution)
    except (EnhancementError, PhotoError) as error:
        reason = str(error) if isinstance(error, EnhancementError) else "the photo cannot be read any more"
        message = Message({"refused": reason})
    answers.write(packed(message))
    answers.flush()


def _end_with_input() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])

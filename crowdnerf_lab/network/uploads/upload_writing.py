"""Writing uploads: bytes on disk before they are acknowledged, and a file whole before anybody sees it.

A row says how many bytes are safe; the file uploads/ID may hold more, which nobody was promised and which the next
piece overwrites. One request at a time holds an upload, by a lock on its file that ends with its process. A complete
file is verified, linked into inbox/EVENT/ and becomes a contribution in the transaction that completes its upload, so
that a process killed at any moment leaves either an upload that can go on or a contribution, never neither.
"""

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from crowdnerf_lab.files import sha256_of
from crowdnerf_lab.network.api.problems import Problem
from crowdnerf_lab.network.uploads.contributions import inbox_file, partial_file
from crowdnerf_lab.network.uploads.media_kinds import HEAD_BYTES, MediaKind, kind_of
from crowdnerf_lab.network.uploads.tus import CHECKSUM_MISMATCH, Checksum
from crowdnerf_lab.network.uploads.uploads import Upload, Uploads, absent, disk_full, moved_to

KEEP_BYTES = 1 << 20
"""So many bytes of a long piece are kept at a time; a connection that breaks loses none, a kill at most these."""


class Writing:
    """One request's hold on an upload. Bytes are appended, and are safe once `finish` or `close` has returned.

    checksum: of the bytes of this request; they count together or not at all. Raises Problem: 404 for an upload that is
    gone, 409 at another offset, 423 while another request holds it, 413 for a body that is too long.
    """

    def __init__(
        self,
        uploads: Uploads,
        upload: Upload,
        *,
        offset: int,
        checksum: Checksum | None = None,
        length: int | None = None,
    ) -> None:
        self._uploads, self._checksum = uploads, checksum
        self._hash = checksum.hasher() if checksum else None
        self._file, self._written, self._kept, self._ended = -1, upload.offset, upload.offset, False
        if upload.complete:
            self.upload = _checked_offset(upload, offset, length=length)
            return
        path = partial_file(uploads.home, upload.id)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock()
            # What the row said before the lock was had may be old.
            current = self._current(path, upload)
            self.upload = _checked_offset(current, offset, length=length)
            if not current.complete:
                os.ftruncate(self._file, self.upload.offset)
        except BaseException:
            self._release()
            raise
        self._written = self._kept = self.upload.offset

    def append(self, piece: bytes) -> None:
        """Add bytes behind those that are there. Raises Problem, too, for what is no photo or clip."""
        upload = self.upload
        if not piece:
            return
        if self._file < 0 or self._written + len(piece) > upload.length:
            self._drop()
            raise _overrun(upload)
        try:
            _write_all(self._file, piece, at=self._written)
        except OSError as error:
            self._drop()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full() from error
            raise
        before, self._written = self._written, self._written + len(piece)
        if self._hash is not None:
            self._hash.update(piece)
        if self._hash is None:
            self._look_at_head(before)
            if self._kept + KEEP_BYTES <= self._written < upload.length:
                self._keep()

    def finish(self) -> Upload:
        """The body is there: verify and keep it; with the last byte the upload becomes a contribution."""
        if self._file < 0:
            return self.upload
        self._ended = True
        if self._checksum and self._hash is not None and self._hash.digest() != self._checksum.digest:
            self._drop()
            raise _mismatch(
                f"{self._checksum.algorithm} of the body is not the one in Upload-Checksum; its bytes were dropped, "
                f"send them again from offset {self.upload.offset}"
            )
        self._look_at_head(self._kept)
        if self._written == self.upload.length:
            self._complete()
        else:
            self._keep()
        self._release()
        return self.upload

    def close(self) -> None:
        """End the hold; a body that broke off is kept as far as it came, unless it has a checksum to meet."""
        if self._file < 0:
            return
        try:
            if self._hash is None and not self._ended:
                with suppress(Problem, OSError):
                    self.finish()
        finally:
            self._release()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(
                423,
                "Locked",
                "another request is sending this upload; wait until it ends, ask for the offset and go on",
                kind="upload-locked",
                headers={"Retry-After": "1"},
            ) from None

    def _current(self, path: Path, upload: Upload) -> Upload:
        """The upload as it is now that it is held; a file made for one that is gone goes again."""
        try:
            current = self._uploads.one(upload.event, upload.ue, id=upload.id)
        except Problem:
            path.unlink(missing_ok=True)
            raise
        if current.complete:
            path.unlink(missing_ok=True)
            self._release()
        return current

    def _look_at_head(self, before: int) -> None:
        """Refuse what is no photo or clip as soon as its first bytes are there, and are what was sent."""
        if before < min(HEAD_BYTES, self.upload.length) <= self._written:
            self._kind()

    def _kind(self) -> MediaKind:
        kind = kind_of(os.pread(self._file, HEAD_BYTES, 0))
        if kind is None:
            self._refuse()
            raise Problem(
                415,
                "Unsupported Media Type",
                "the file does not begin like JPEG, HEIC, AVIF, WebP, PNG, MP4, MOV, MKV or WebM; the upload was "
                "discarded: convert the file and send it anew",
                kind="media-type",
            )
        return kind

    def _keep(self) -> None:
        """Bytes on disk, then the row that promises them."""
        if self._written == self._kept:
            return
        self._synchronise()
        upload = moved_to(self.upload, self._written)
        expires = time.time() + 3600 * self._uploads.settings.upload_hours
        with self._uploads.database.transaction() as rows:
            done = rows.execute(
                "UPDATE uploads SET offset = ?, expires = ? WHERE id = ?", (upload.offset, expires, upload.id)
            )
        if not done.rowcount:
            self._refuse()
            raise absent(upload.id)
        self.upload, self._kept = moved_to(upload, upload.offset, expires=expires), self._written

    def _complete(self) -> None:
        """Verify the whole file, link it into the inbox, and say so in one transaction."""
        self._synchronise()
        upload, uploads, kind = self.upload, self._uploads, self._kind()
        path = partial_file(uploads.home, upload.id)
        try:
            digest = sha256_of(path)
        except FileNotFoundError:
            self._refuse()
            raise absent(upload.id) from None
        if upload.sha256 not in (None, digest):
            self._refuse()
            raise _mismatch(
                f"sha256 of the file is {digest}, and {upload.sha256} was announced; the upload was discarded, "
                "send the file anew"
            )
        target = inbox_file(upload.event, upload.id, suffix=kind.suffix)
        _linked(path, uploads.home / target)
        now = time.time()
        with uploads.database.transaction() as rows:
            done = rows.execute("UPDATE uploads SET offset = length WHERE id = ?", (upload.id,))
            if done.rowcount:
                rows.execute(
                    "INSERT INTO contributions (id, event, ue, file, media_type, bytes, sha256, capture, received, "
                    "state, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'received', ?)",
                    (
                        *(upload.id, upload.event, upload.ue, target.as_posix(), kind.media_type, upload.length),
                        *(digest, upload.capture, now, now),
                    ),
                )
        path.unlink(missing_ok=True)
        if not done.rowcount:
            (uploads.home / target).unlink(missing_ok=True)
            self._drop()
            raise absent(upload.id)
        self.upload = moved_to(upload, upload.length)

    def _synchronise(self) -> None:
        os.fsync(self._file)
        if self.upload.offset == 0:
            _synchronise_folder(self._uploads.home / "uploads")

    def _refuse(self) -> None:
        """Discard the whole upload."""
        self._uploads.discard(self.upload.id)
        self._release()

    def _drop(self) -> None:
        """Forget what this request wrote and was not kept."""
        with suppress(OSError):
            os.ftruncate(self._file, self._kept)
        self._release()

    def _release(self) -> None:
        """Closing the file ends the lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _checked_offset(upload: Upload, offset: int, *, length: int | None) -> Upload:
    """The upload, if a body of `length` bytes (None: unknown) may go on at `offset`."""
    if offset != upload.offset:
        raise Problem(
            409,
            "Conflict",
            f"Upload-Offset is {offset}, and the upload has {upload.offset} bytes; go on from there",
            kind="offset-mismatch",
            headers={"Upload-Offset": str(upload.offset)},
        )
    if length is not None and offset + length > upload.length:
        raise _overrun(upload)
    return upload


def _overrun(upload: Upload) -> Problem:
    left = upload.length - upload.offset
    return Problem(
        413,
        "Content Too Large",
        f"the body is longer than the {left} bytes that Upload-Length leaves; send these, or start another upload",
        kind="beyond-length",
    )


def _mismatch(detail: str) -> Problem:
    return Problem(CHECKSUM_MISMATCH, "Checksum Mismatch", detail, kind="checksum-mismatch")


def _write_all(file: int, piece: bytes, *, at: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def _linked(path: Path, target: Path) -> None:
    """Give a file its place in the inbox; what a killed process left there goes."""
    for folder in (target.parent.parent, target.parent):
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            _synchronise_folder(folder.parent)
    target.unlink(missing_ok=True)
    os.link(path, target)
    _synchronise_folder(target.parent)


def _synchronise_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

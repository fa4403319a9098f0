"""Which photos of an event are copies of better ones.

Two UEs never stand in one place: what looks the same was sent twice. One UE does: its next shot, a moment later, may
look almost the same and still be another photo, so its own must agree more closely before they are taken for copies.
"""

from collections.abc import Mapping

from crowdnerf_lab.captures.screening.near_duplicates import DuplicateLimits, Signature, near_duplicates

ACROSS_UES = DuplicateLimits()
WITHIN_A_UE = DuplicateLimits(fine=0.97, fine_faint=0.97)
"""Frames of a video that hardly moves agree by up to 0.95."""


def better_copies(signatures: Mapping[str, Signature], owners: Mapping[str, str]) -> dict[str, str]:
    """For each photo that is a copy of a better one, that one. owners: the UE of each photo.

    The best of the photos that look the same is the largest, of equally large ones the sharpest. Pictures smaller than
    what they are compared at have no detail to tell two views apart by, and are no copies.
    """
    signatures = {file: found for file, found in signatures.items() if _has_detail(found)}
    by_owner: dict[str, list[str]] = {}
    for file in signatures:
        by_owner.setdefault(owners[file], []).append(file)
    better = _across_ues(signatures, owners)
    for own in by_owner.values():
        for best, *copies in _groups({file: signatures[file] for file in own}, WITHIN_A_UE):
            better = dict.fromkeys(copies, best) | better
    return better


def _has_detail(signature: Signature) -> bool:
    return min(signature.width, signature.height) >= min(signature.thumbnail.shape)


def _across_ues(signatures: Mapping[str, Signature], owners: Mapping[str, str]) -> dict[str, str]:
    """The copies of what another UE sent; several of one UE's that look alike are left to the closer look."""
    better: dict[str, str] = {}
    for group in _groups(signatures, ACROSS_UES):
        kept: list[str] = []
        for file in group:
            original = next((other for other in kept if owners[other] != owners[file]), None)
            if original is None:
                kept.append(file)
            else:
                better[file] = original
    return better


def _groups(signatures: Mapping[str, Signature], limits: DuplicateLimits) -> list[list[str]]:
    """Files that show the same picture, the best of each group first."""
    files = list(signatures)
    return [[files[index] for index in group] for group in near_duplicates(list(signatures.values()), limits=limits)]

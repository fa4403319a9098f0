"""Which photos of an event are copies of better ones.

Two UEs never stand in one place: what looks the same was sent twice. One UE does: its next shot, a moment later, may
look almost the same and still be another photo, so its own must agree more closely before they are taken for copies.
"""

from collections.abc import Mapping

from crowdnerf_lab.captures.near_duplicates import DuplicateLimits, Signature, near_duplicates

ACROSS_UES = DuplicateLimits()
WITHIN_A_UE = DuplicateLimits(fine=0.97, fine_faint=0.97)
"""Frames of a video that hardly moves agree by up to 0.95."""


def better_copies(signatures: Mapping[str, Signature], owners: Mapping[str, str]) -> dict[str, str]:
    """For each photo that is a copy of a better one, that one. owners: the UE of each photo.

    The best of the photos that look the same is the largest, of equally large ones the sharpest.
    """
    files = list(signatures)
    better: dict[str, str] = {}
    for limits in (ACROSS_UES, WITHIN_A_UE):
        for group in near_duplicates([signatures[file] for file in files], limits=limits):
            kept: list[str] = []
            for file in (files[index] for index in group):
                same_owner = limits is WITHIN_A_UE
                original = next((other for other in kept if same_owner or owners[other] != owners[file]), None)
                if original is None:
                    kept.append(file)
                else:
                    better.setdefault(file, original)
    return better

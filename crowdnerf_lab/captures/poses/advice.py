"""Why structure from motion cannot work on these pictures, and what to do: judged from features and matches alone."""

from typing import Any

import numpy as np

FEW_FEATURES = 60
"""A picture with fewer SIFT features is blurred, dark or featureless; a sharp one of 320x240 has several hundred."""
LITTLE_PARALLAX_DEG = 1.0
"""Median angle between the two lines of sight to the points of a pair, below which nothing can be triangulated."""
PAIRS_LOOKED_AT = 60
"""Matched pairs that the parallax is estimated from, spread over all of them."""
LEAST_SHARED = 15
"""Matches that agree with one epipolar geometry, for a pair to count: COLMAP's own limit."""


def lack_of_features(database: Any) -> str:
    """A sentence when half the pictures or more show too little to recognise; empty otherwise."""
    counts = [database.num_keypoints_for_image(image.image_id) for image in database.read_all_images()]
    poor = sum(count < FEW_FEATURES for count in counts)
    if poor * 2 < len(counts):
        return ""
    return (
        f"{poor} of {len(counts)} photos show fewer than {FEW_FEATURES} distinct points (median "
        f"{np.median(counts):.0f}): they are blurred, dark, tiny or featureless; take sharper ones, or larger versions"
    )


def lack_of_overlap(database: Any) -> str:
    """A sentence when hardly any two pictures show the same thing; empty otherwise."""
    photos, shared = database.num_images(), len(_verified(database))
    if shared >= photos - 1:
        return ""
    return (
        f"only {shared} of {database.num_matched_image_pairs()} compared pairs of {photos} photos show the same thing; "
        "add photos taken between the others, so that each shows half of what its neighbour shows"
    )


def lack_of_parallax(colmap: Any, database: Any) -> str:
    """A sentence when the pictures were all taken from one spot, so that they tell directions only; empty otherwise."""
    verified = _verified(database)
    chosen = np.unique(np.linspace(0, len(verified) - 1, min(PAIRS_LOOKED_AT, len(verified))).astype(int))
    angles = [_parallax(colmap, database, *verified[index]) for index in chosen]
    known = [angle for angle in angles if angle is not None]
    if not known or np.median(known) >= LITTLE_PARALLAX_DEG:
        return ""
    return (
        f"the photos were taken from one spot: lines of sight to the same point differ by {np.median(known):.1f} "
        f"degrees, {LITTLE_PARALLAX_DEG:.0f} and more are needed; step aside by a tenth of the distance between photos"
    )


def _verified(database: Any) -> list[tuple[int, Any]]:
    """Pairs whose matches agree with one geometry, with that geometry."""
    found = zip(*database.read_two_view_geometries(), strict=True)
    return [(pair, geometry) for pair, geometry in found if len(geometry.inlier_matches) >= LEAST_SHARED]


def _parallax(colmap: Any, database: Any, pair: int, geometry: Any) -> float | None:
    """Degrees between the lines of sight of a pair, the median over its points; None when its geometry stays open."""
    images = [database.read_image(number) for number in colmap.pair_id_to_image_pair(pair)]
    cameras = [database.read_camera(image.camera_id) for image in images]
    places = [np.asarray(database.read_keypoints(image.image_id).data)[:, :2].astype(float) for image in images]
    if not colmap.estimate_two_view_geometry_pose(cameras[0], places[0], cameras[1], places[1], geometry):
        return None
    return float(np.degrees(geometry.tri_angle)) if geometry.tri_angle >= 0 else None

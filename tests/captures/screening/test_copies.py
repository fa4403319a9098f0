"""Copies: of another UE's photo, of one's own; a UE's next shot, a moment later, is no copy."""

from dataclasses import replace

import torch

from crowdnerf_lab.captures.screening.copies import ACROSS_UES, WITHIN_A_UE, better_copies
from crowdnerf_lab.captures.screening.near_duplicates import Signature, near_duplicates, signature_of


def signature(seed: int = 0) -> Signature:
    """Of a picture of random patches."""
    patches = torch.rand(12, 16, 3, generator=torch.Generator().manual_seed(seed))
    return signature_of((255 * patches).to(torch.uint8).repeat_interleave(20, 0).repeat_interleave(20, 1))


def a_moment_later(first: Signature) -> Signature:
    """What the same phone sees next: almost the same."""
    changed = torch.rand(first.thumbnail.shape, generator=torch.Generator().manual_seed(9)) - 0.5
    return replace(first, thumbnail=(first.thumbnail + 0.16 * changed).clamp(0, 1), sharpness=first.sharpness - 1)


def test_the_example_lies_between_the_two_limits():
    pair = [signature(), a_moment_later(signature())]
    assert near_duplicates(pair, limits=ACROSS_UES) == ((0, 1),)
    assert near_duplicates(pair, limits=WITHIN_A_UE) == ()


def test_a_ues_next_shot_is_kept_and_another_ues_is_a_copy():
    pair = {"a": signature(), "b": a_moment_later(signature())}
    assert better_copies(pair, {"a": "one", "b": "one"}) == {}
    assert better_copies(pair, {"a": "one", "b": "two"}) == {"b": "a"}


def test_the_very_same_picture_is_a_copy_also_within_a_ue_and_the_larger_is_kept():
    pair = {"a": signature(), "b": replace(signature(), width=640, height=480)}
    assert better_copies(pair, {"a": "one", "b": "one"}) == {"a": "b"}
    assert better_copies(pair, {"a": "one", "b": "two"}) == {"a": "b"}


def test_a_copy_does_not_cost_the_original_ues_other_shots():
    shots = {"a": signature(), "b": a_moment_later(signature()), "c": replace(signature(), width=100, height=75)}
    assert better_copies(shots, {"a": "one", "b": "one", "c": "two"}) == {"c": "a"}


def test_pictures_too_small_to_tell_two_views_apart_are_no_copies():
    pair = {"a": replace(signature(), width=64, height=48), "b": replace(signature(), width=64, height=48)}
    assert better_copies(pair, {"a": "one", "b": "two"}) == {}


def test_different_pictures_are_no_copies():
    crowd = {str(seed): signature(seed) for seed in range(8)}
    assert better_copies(crowd, {file: file for file in crowd}) == {}
    assert better_copies({}, {}) == {}

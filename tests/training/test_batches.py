"""Batches: every choice once per epoch, images without place, all a function of seed and step."""

from __future__ import annotations

import pytest
import torch

from palate.data.records import Choice
from palate.data.tables import to_table
from palate.errors import DataError
from palate.training.batches import augment, batch_at, batches_in_order, read_groups


def groups_of(*ranks):
    choices = [
        Choice(
            choice=f"{number}",
            prompt=f"prompt {number % 3}",
            images=tuple(f"{number}/{place}" for place in range(len(row))),
            ranks=row,
        )
        for number, row in enumerate(ranks)
    ]
    return read_groups(to_table(choices, "choices"), ["overall"], "here")


def test_choices_become_padded_groups():
    groups = groups_of((2, 1, 2, 2), (1, 2), (1, 1, 2))
    assert groups.all.mask.sum(-1).tolist() == [4, 2, 3]
    assert groups.all.ranks.tolist() == [[2, 1, 2, 2], [1, 2, 0, 0], [1, 1, 2, 0]]
    assert groups.prompts == ["prompt 0", "prompt 1", "prompt 2"]
    assert [groups.keys[place] for place in groups.all.images[1][:2]] == ["1/0", "1/1"]


def test_a_dimension_without_choices_names_those_there_are():
    with pytest.raises(DataError, match=r"no choices on 'detail', there are \['overall'\]"):
        read_groups(to_table([Choice("a", "p", ("x", "y"), (1, 2))], "choices"), ["detail"], "here")


@pytest.mark.parametrize("size", [1, 3, 7, 10, 25])
def test_every_choice_comes_once_per_epoch(size):
    groups = groups_of(*[(1, 2)] * 10)
    steps = [batch_at(groups, step, size, seed=4) for step in range(20)]
    shown = torch.cat([batch.images[:, 0] // 2 for batch in steps]).tolist()
    for epoch in range(len(shown) // 10):
        assert sorted(shown[10 * epoch : 10 * epoch + 10]) == list(range(10))


def test_a_batch_depends_on_seed_and_step_only():
    groups = groups_of(*[(1, 2, 2)] * 9)
    one, again = (batch_at(groups, 5, 4, seed=1) for _ in range(2))
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, batch_at(groups, 5, 4, seed=2).images)


def test_shuffled_images_keep_their_rank_and_their_padding():
    groups = groups_of((2, 1, 2, 2), (1, 2), (2, 2, 1))
    winners = {1, 4, 8}
    for step in range(30):
        batch = batch_at(groups, step, 3, seed=0)
        assert set(batch.images[batch.ranks == 1].tolist()) == winners
        assert sorted(batch.mask.sum(-1).tolist()) == [2, 3, 4]
        assert not (batch.ranks * ~batch.mask).any()


def test_no_place_is_favoured():
    """The winner stands last in every choice of the data, and anywhere in the batches."""
    groups = groups_of(*[(2, 2, 2, 1)] * 50)
    best = torch.cat([batch_at(groups, step, 50, seed=0).ranks == 1 for step in range(40)])
    assert (best.float().mean(0) - 0.25).abs().max() < 0.03  # 2,000 draws: 3 standard errors


def test_batches_in_order_are_all_the_choices():
    groups = groups_of(*[(1, 2)] * 10)
    shown = torch.cat([batch.images for batch in batches_in_order(groups, 4)])
    assert torch.equal(shown, groups.all.images)


def test_flat_columns_hold_no_padding():
    groups = groups_of((2, 1, 2, 2), (1, 2))
    values, ranks, offsets = groups.flat(torch.arange(8.0).view(2, 4))
    assert values.tolist() == [0, 1, 2, 3, 4, 5]
    assert ranks.tolist() == [2, 1, 2, 2, 1, 2]
    assert offsets.tolist() == [0, 4, 6]


def slow_augment(picture, down, right, mirrored):
    """Move one picture, pixel by pixel."""
    size = picture.shape[-1]
    out = torch.empty_like(picture)
    for y in range(size):
        for x in range(size):
            column = size - 1 - x if mirrored else x
            out[:, y, x] = picture[
                :, min(max(y + down, 0), size - 1), min(max(column + right, 0), size - 1)
            ]
    return out


def test_augmented_pictures_are_shifted_and_mirrored():
    pictures = torch.randint(0, 256, (6, 3, 5, 5), dtype=torch.uint8)
    found = augment(pictures, 1, flip=True, seed=0, step=3)
    possible = [
        (down, right, flip) for down in (-1, 0, 1) for right in (-1, 0, 1) for flip in (False, True)
    ]
    for picture, moved in zip(pictures, found, strict=True):
        assert any(torch.equal(slow_augment(picture, *how), moved) for how in possible)
    assert torch.equal(found, augment(pictures, 1, flip=True, seed=0, step=3))
    assert not torch.equal(found, augment(pictures, 1, flip=True, seed=0, step=4))


def test_no_change_is_no_change():
    pictures = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(augment(pictures, 0, flip=False, seed=0, step=0), pictures)

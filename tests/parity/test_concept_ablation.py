"""Concept Ablation's augmentation and its masked loss, by hand."""

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.concepts import Concept
from aizheimer.data.augmentation import PREFIXES, augmented, placed
from aizheimer.errors import InputError
from aizheimer.methods.concept_ablation import ConceptAblation
from aizheimer.objectives.noise_target import masked_mse_by_example

SIZE, CELLS = 32, 8


class TestPlaced:
    def test_a_smaller_picture_lies_on_grey_and_counts_a_cell_inside(self):
        """Side 6 of 8 at row 0, column 2, cells of 2: rows 0-2 and columns 1-3 are pasted on, (1, 2) is inside."""
        picture, mask = placed(torch.ones(3, 8, 8), side=6, top=0, left=2, cells=4)
        assert mask.nonzero().tolist() == [[0, 1, 2]]
        assert (picture[:, :6, 2:] == 1).all()
        assert picture.sum() == 3 * 36

    def test_at_its_own_size_only_the_margin_does_not_count(self):
        shown = torch.rand(3, 8, 8)
        picture, mask = placed(shown, side=8, top=0, left=0, cells=4)
        assert torch.allclose(picture, shown)
        assert mask[0].tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]

    def test_a_larger_picture_is_cut_out_and_counts_everywhere(self):
        """Twice the size, a row of columns 0 to 3: the middle half of it is from the second and third column."""
        ramp = torch.arange(4.0).expand(3, 4, 4) / 4
        picture, mask = placed(ramp, side=8, top=2, left=2, cells=2)
        assert mask.sum() == 4
        # Bilinear: output pixel i looks at (i + 0.5) / 2 - 0.5, so 2..5 look at 0.75, 1.25, 1.75, 2.25.
        torch.testing.assert_close(picture[0, 0], torch.tensor([0.75, 1.25, 1.75, 2.25]) / 4)


class TestAugmented:
    def test_sizes_words_and_shares(self):
        """A white picture on grey: its side is what is white, and says which words it gets."""
        generator, seen = generator_for(0, "augmented"), []
        for _ in range(600):
            picture, mask, prefix = augmented(torch.ones(3, SIZE, SIZE), cells=CELLS, generator=generator)
            white = int((picture[0] > 0.5).sum())
            side = round(white**0.5)
            assert picture.shape == (3, SIZE, SIZE)
            assert side * side == white
            assert mask.sum() >= 1
            if bool(mask.all()):
                assert (side, PREFIXES[prefix]) in {(SIZE, "zoomed in "), (SIZE, "close up ")}
            else:
                # Three cells of four are more than a third of 32: the least.
                assert 12 <= side <= SIZE
                assert PREFIXES[prefix] in ({"a far away ", "very small "} if side < 0.6 * SIZE else {""})
            seen.append(prefix)
        shares = [seen.count(prefix) / len(seen) for prefix in range(len(PREFIXES))]
        assert shares[3] + shares[4] == pytest.approx(1 / 3, abs=0.05)
        assert shares[1] == pytest.approx(shares[2], abs=0.05)
        # 8 of the 21 sides from 12 to 32 are below 19.2.
        assert shares[1] + shares[2] == pytest.approx(2 / 3 * 8 / 21, abs=0.05)

    def test_half_of_them_are_flipped(self):
        generator, flips = generator_for(1, "augmented"), 0
        left = torch.cat([torch.ones(3, SIZE, SIZE // 2), -torch.ones(3, SIZE, SIZE // 2)], dim=-1)
        for _ in range(300):
            picture, _, _ = augmented(left, cells=CELLS, generator=generator)
            columns = picture[0].sum(0).nonzero().flatten()
            flips += bool(picture[0, :, columns[0]].sum() < 0)
        assert flips / 300 == pytest.approx(0.5, abs=0.08)


class TestTheLoss:
    def test_every_picture_counts_as_much_by_hand(self):
        """One cell of error 4, two of errors 1 and 0: (4 + 0.5) / 2; over all cells it would be 5 / 3."""
        prediction = torch.tensor([[[[2.0, 9.0]]], [[[1.0, 0.0]]]])
        masks = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 1.0]]]])
        term = masked_mse_by_example(prediction, torch.zeros_like(prediction), masks)
        assert term.total == 2.25
        assert term.parts["masked"] == 2.25

    def test_the_mask_is_of_all_channels(self):
        """Two channels under one cell: errors 1 and 9 are 5 on average."""
        prediction = torch.tensor([[[[1.0, 7.0]], [[3.0, 7.0]]]], requires_grad=True)
        term = masked_mse_by_example(prediction, torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 0.0]]]]))
        assert term.total == 5.0
        term.total.backward()
        assert prediction.grad.tolist() == [[[[1.0, 0.0]], [[3.0, 0.0]]]]

    def test_nothing_under_the_mask_is_nothing_and_shapes_must_agree(self):
        assert (
            masked_mse_by_example(torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)).total == 0
        )
        with pytest.raises(InputError, match="wanted the same shape"):
            masked_mse_by_example(torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 2))


def test_prompts_are_paired_in_turn():
    concept, anchors = Concept("cat", anchor="dog"), ("one", "two", "three")
    given = ["a cat", "the cat"]
    assert ConceptAblation()._pairs(given, concept) == (given, ["a dog", "the dog"])
    own = ConceptAblation(anchor_prompts=anchors)._pairs(given, concept)
    assert own == (["a cat", "the cat", "a cat"], ["one", "two", "three"])
    fewer = ConceptAblation(anchor_prompts=anchors[:1])._pairs(given, concept)
    assert fewer == (given, ["one", "one"])
    memorised = ConceptAblation(anchor_prompts=anchors[:2], prompts="target")._pairs(given, concept)
    assert memorised == (["cat", "cat"], ["one", "two"])

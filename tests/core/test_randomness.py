from __future__ import annotations

import pytest
import torch

from bench.core.randomness import Draws, batch_rows, generator, normal, permutation, uniform


class TestAddress:
    def test_the_same_address_gives_the_same_draw_again(self) -> None:
        assert torch.equal(normal((3, 2), 7, "noise", 4), normal((3, 2), 7, "noise", 4))
        assert uniform(7, "t") == uniform(7, "t")
        assert torch.equal(permutation(50, 7, "order", 0), permutation(50, 7, "order", 0))

    def test_drawing_elsewhere_in_between_changes_nothing(self) -> None:
        first = normal((5,), 1, "noise")
        torch.manual_seed(123)
        normal((5,), 1, "other")
        assert torch.equal(normal((5,), 1, "noise"), first)

    @pytest.mark.parametrize(
        "other",
        [(1, "noise", 0, 3), (0, "timestep", 0, 3), (0, "noise", 1, 3), (0, "noise", 0, 4), (0, "noise", "0", 3),
         (0, "noise", 0), (0, "noise", 0, 3, 0)],
    )  # fmt: skip
    def test_every_part_of_an_address_counts(self, other: tuple[int | str, ...]) -> None:
        assert not torch.equal(normal((8,), *other), normal((8,), 0, "noise", 0, 3))

    def test_parts_do_not_run_into_each_other(self) -> None:
        assert generator("ab", "c").initial_seed() != generator("a", "bc").initial_seed()
        assert generator(1, 23).initial_seed() != generator(12, 3).initial_seed()

    def test_the_seed_of_an_address_never_changes_between_versions(self) -> None:
        # SHA-256 of "int:0\x1fstr:noise", its first eight bytes, little-endian, signed.
        assert generator(0, "noise").initial_seed() % 2**64 == 5901065441097782352

    def test_uniform_draws_are_spread_over_the_unit_interval(self) -> None:
        draws = [uniform(0, "t", index) for index in range(2000)]
        assert 0 <= min(draws) < 0.01
        assert 0.99 < max(draws) < 1
        assert sum(draws) / len(draws) == pytest.approx(0.5, abs=0.02)

    def test_normal_draws_are_standard(self) -> None:
        draws = torch.stack([normal((4,), 0, "noise", index) for index in range(2000)])
        assert draws.mean().item() == pytest.approx(0, abs=0.03)
        assert draws.std().item() == pytest.approx(1, abs=0.03)


class TestDraws:
    def test_a_pair_gets_the_same_draws_in_any_company(self) -> None:
        together, alone = Draws(3, 5, [4, 9, 2]), Draws(3, 5, [9])
        assert torch.equal(together.normal("noise", (2, 2))[1], alone.normal("noise", (2, 2))[0])
        assert together.uniform("timestep")[1] == alone.uniform("timestep")[0]

    def test_draws_follow_the_order_of_the_pairs(self) -> None:
        one, other = Draws(3, 5, [4, 9, 2]), Draws(3, 5, [2, 4, 9])
        assert torch.equal(one.normal("noise", (3,))[[2, 0, 1]], other.normal("noise", (3,)))

    @pytest.mark.parametrize("other", [Draws(4, 5, [1]), Draws(3, 6, [1]), Draws(3, 5, [2])])
    def test_seed_step_and_pair_all_count(self, other: Draws) -> None:
        assert not torch.equal(other.normal("noise", (8,)), Draws(3, 5, [1]).normal("noise", (8,)))

    def test_shapes_and_types_are_those_of_the_batch(self) -> None:
        draws = Draws(0, 0, [1, 2, 3])
        assert draws.normal("noise", (4, 2)).shape == (3, 4, 2)
        assert draws.uniform("timestep").dtype == torch.float64
        assert draws.uniform("timestep").shape == (3,)


class TestOrder:
    @pytest.mark.parametrize(("count", "batch"), [(10, 4), (10, 5), (7, 3), (3, 8), (5, 5), (1, 4)])
    def test_every_epoch_holds_every_pair_exactly_once(self, count: int, batch: int) -> None:
        rows = [row for step in range(3 * count) for row in batch_rows(count, batch, 0, step)]
        for epoch in range(3):
            assert sorted(rows[epoch * count : (epoch + 1) * count]) == list(range(count))

    def test_the_order_does_not_depend_on_the_size_of_the_batch(self) -> None:
        small = [row for step in range(12) for row in batch_rows(10, 2, 0, step)]
        large = [row for step in range(3) for row in batch_rows(10, 8, 0, step)]
        assert small == large

    def test_a_batch_is_as_large_as_it_was_asked_to_be(self) -> None:
        assert [len(batch_rows(10, 4, 0, step)) for step in range(5)] == [4, 4, 4, 4, 4]

    def test_epochs_and_seeds_have_orders_of_their_own(self) -> None:
        first, second, other = batch_rows(30, 30, 0, 0), batch_rows(30, 30, 0, 1), batch_rows(30, 30, 1, 0)
        assert first != second
        assert first != other
        assert first != list(range(30))

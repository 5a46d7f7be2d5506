"""What the data commands are made of: scores, labels, comparisons, Pareto pairs, writing, and the check's facts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from workshop import Brightness, png, preference_columns, write_parquet

from bench import UserError
from bench.cli.ranking_methods import METHODS
from bench.core.randomness import batch_rows, permutation
from bench.data.comparing import choose_pairs, rank_data, score_judge
from bench.data.preferences import PreferenceData
from bench.data.ranking import dominating_pairs
from bench.data.reading import inspect_data, kept_data, read_preferences
from bench.data.scores import labels_by_reward, rewards, score_data
from bench.data.sources import open_source
from bench.data.summary import check_lines
from bench.data.writing import already_made, held, pair_tables, scored_tables, write_data
from bench.scoring.metric import METRICS

SCORES = np.array([[0.2, 0.9, 0.4, 0.1], [0.5, 0.5, 0.5, 0.5], [0.3, 0.1, 0.2, 0.3]])


@pytest.fixture
def lists(tmp_path: Path) -> PreferenceData:
    """Three captions with four images each, made by four makers."""
    columns: dict[str, list[Any]] = {"caption": ["one", "two", "three"]}
    for place in range(4):
        columns[f"jpg_{place}"] = [png(4 * row + place) for row in range(3)]
        columns[f"source_{place}"] = [f"maker {place}"] * 3
    return read_preferences(write_parquet(tmp_path / "lists.parquet", columns))


class TestRanking:
    def test_champion_meets_last_and_ties_give_no_pair(self, lists: PreferenceData, tmp_path: Path) -> None:
        chosen = rank_data(lists, score_judge(SCORES), tmp_path / "log.jsonl")
        # row 0: b > c > a > d; row 1: all alike; row 2: a stays champion on its tie with d, then d, c, b
        assert chosen.rows.tolist() == [0, 2]
        assert chosen.winners.tolist() == [1, 0]
        assert chosen.losers.tolist() == [3, 1]
        assert chosen.found["pairs"] == 2
        assert chosen.found["rows without a pair"] == 1

    def test_every_comparison_is_logged_once(self, lists: PreferenceData, tmp_path: Path) -> None:
        chosen = rank_data(lists, score_judge(SCORES), tmp_path / "log.jsonl")
        log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        assert log[:3] == [
            {"row": 0, "first": 0, "second": 1, "verdict": "second"},
            {"row": 0, "first": 1, "second": 2, "verdict": "first"},
            {"row": 0, "first": 1, "second": 3, "verdict": "first"},
        ]
        asked = [(line["row"], frozenset((line["first"], line["second"]))) for line in log]
        assert len(asked) == len(set(asked)) == chosen.found["comparisons"]
        assert sum(line["verdict"] == "tie" for line in log) == chosen.found["ties"] == 7

    def test_a_judge_with_a_favourite_place_gives_no_pairs(self, lists: PreferenceData, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="the judge finds no difference in any row"):
            rank_data(lists, lambda row, first, second: True, tmp_path / "log.jsonl")

    def test_a_circle_of_preferences_gives_no_false_pair(self, lists: PreferenceData, tmp_path: Path) -> None:
        circle = {(1, 0), (2, 1), (3, 2), (0, 3), (2, 0), (1, 3)}  # the champion is 3, the last 0, and 0 beats 3

        def judge(row: int, first: int, second: int) -> bool:
            return (first, second) in circle if row == 0 else first < second

        chosen = rank_data(lists, judge, tmp_path / "log.jsonl")
        assert chosen.rows.tolist() == [1, 2]
        assert chosen.found["rows without a pair"] == 1


class TestPareto:
    # the paper's worked example: images 1, 2, 3, 4, 5, 6, 7, 9 under two rewards
    POINTS = np.array([[831, 928, 981, 791, 865, 802, 861, 919], [167, 144, 57, 79, 18, 119, 119, 62]], dtype=float)

    def test_worked_example_of_the_paper_beside_a_caption_without_pairs(self) -> None:
        opposed = np.stack([np.arange(8.0), -np.arange(8.0)])
        pairs = dominating_pairs(np.stack([opposed, self.POINTS], axis=1))
        assert pairs.tolist() == [[1, 0, 3], [1, 1, 3], [1, 1, 4], [1, 2, 4]]

    def test_calibrated_rewards_are_the_mean_over_rewards(self, lists: PreferenceData, tmp_path: Path) -> None:
        worked = np.array([1, 0, -1, 0.5])
        scores = [np.tile(worked, (3, 1)), np.tile(10 * worked, (3, 1))]
        chosen = METHODS["pareto"].choose(lists, scores, tmp_path / "out.parquet")
        assert list(zip(chosen.winners.tolist(), chosen.losers.tolist(), strict=True)) == [(0, 2)] * 3
        # (0.744771662603 + mean of sigmoid(10), sigmoid(20), sigmoid(5)) / 2
        assert chosen.scores["calibrated"][0, 0] == pytest.approx((0.744771662603 + 0.997753916382) / 2, abs=1e-9)

    def test_none_is_refused(self, lists: PreferenceData) -> None:
        with pytest.raises(UserError, match="no image is better than another of its caption under every reward"):
            choose_pairs(lists, np.empty((0, 3), dtype=np.int64))

    @pytest.mark.parametrize(
        ("method", "typed", "message"),
        [
            ("pairwise", (None, None), "--method pairwise needs 1 metric, not 0; name them with --judge"),
            ("pairwise", ("a,b", None), "--method pairwise needs 1 metric, not 2"),
            ("pairwise", ("a", "b"), "--method pairwise takes --judge, not --metrics"),
            ("pareto", (None, "a"), "--method pareto needs at least 2 metrics, not 1"),
        ],
    )
    def test_wrong_metrics_are_refused(self, method: str, typed: tuple[str | None, str | None], message: str) -> None:
        with pytest.raises(UserError, match=message):
            METHODS[method].metrics(method, dict(zip(("--judge", "--metrics"), typed, strict=True)))


class TestPick:
    def test_picked_images_are_read_when_asked_for_and_shared_rows_once(self, lists: PreferenceData) -> None:
        class Counting(Sequence[Any]):
            read: ClassVar[list[int]] = []

            def __len__(self) -> int:
                return 3

            def __getitem__(self, index: Any) -> Any:
                self.read.append(index)
                return lists.encoded[index]

        rows, images = np.array([0, 0, 0, 2]), np.array([[1, 3], [1, 0], [0, 3], [3, 2]])
        picked = dataclasses.replace(lists, encoded=Counting()).pick(rows, images)
        assert Counting.read == [0, 2]
        expected = [(png(1), png(3)), (png(1), png(0)), (png(0), png(3)), (png(11), png(10))]
        assert list(picked.encoded) == picked.encoded[0:4] == expected
        assert Counting.read == [0, 2] * 3
        assert list(picked.captions) == ["one", "one", "one", "three"]

    def test_picked_images_have_the_digest_of_the_same_images_on_disk(
        self, lists: PreferenceData, tmp_path: Path
    ) -> None:
        picked = lists.pick(np.array([0, 2]), np.array([[1, 3], [3, 2]]))
        columns = {"caption": ["one", "three"], "jpg_0": [png(1), png(11)], "jpg_1": [png(3), png(10)]}
        assert picked.digest == read_preferences(write_parquet(tmp_path / "same.parquet", columns)).digest

    def test_sizes_go_with_the_images(self, lists: PreferenceData) -> None:
        sizes = np.arange(24, dtype=np.int32).reshape(3, 4, 2)
        picked = dataclasses.replace(lists, sizes=sizes).pick(np.array([2]), np.array([[3, 0]]))
        assert (picked.size(0, 0), picked.size(0, 1)) == ((22, 23), (16, 17))


class TestScores:
    def test_a_second_call_scores_only_what_is_missing(self, lists: PreferenceData, tmp_path: Path) -> None:
        class Counting(Brightness):
            seen = 0

            def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
                Counting.seen += len(images)
                return super().score(images, prompts)

        first = score_data("brightness", Counting(), lists, tmp_path)
        assert Counting.seen == 12
        assert np.array_equal(score_data("brightness", Counting(), lists, tmp_path), first)
        assert Counting.seen == 12
        assert first[2, 3] == np.asarray(lists.image(2, 3)).mean(dtype=np.float64).astype(np.float32)

    def test_progress_names_the_file_and_not_its_folders(
        self, lists: PreferenceData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        score_data("brightness", Brightness(), lists, tmp_path)
        shown = capsys.readouterr().err
        assert shown.startswith(f"brightness of {Path(lists.report.source).name}  3/3")

    def test_a_scorer_that_compares_prompts_is_told_them_all(self, lists: PreferenceData, tmp_path: Path) -> None:
        class Place(Brightness):
            prompts: tuple[str, ...] = ()

            def for_prompts(self, prompts: Sequence[str]) -> Place:
                bound = Place()
                bound.prompts = tuple(prompts)
                return bound

            def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
                return torch.tensor([float(self.prompts.index(prompt)) for prompt in prompts])

        assert score_data("place", Place(), lists, tmp_path).tolist() == [[0.0] * 4, [1.0] * 4, [2.0] * 4]

    def test_labels_by_rewards(self) -> None:
        assert labels_by_reward(np.array([[2.0, 1.0], [1.0, 2.0], [3.0, 3.0]])).tolist() == [1, 0, 0.5]

    def test_rewards_have_the_unit_of_the_tables(self) -> None:
        assert rewards(METRICS.get("hpsv2").info, np.array([0.25])).tolist() == [25]

    def test_rewards_of_a_metric_that_is_better_when_lower_are_turned(self) -> None:
        info = dataclasses.replace(Brightness.info, display_factor=10.0, higher_is_better=False)
        assert rewards(info, np.array([0.25, -3])).tolist() == [-2.5, 30]


class TestWriting:
    def test_pairs_keep_the_order_of_the_candidates_and_bring_scores_and_makers(
        self, lists: PreferenceData, tmp_path: Path
    ) -> None:
        scored = lists.with_scores(level=SCORES)
        tables = pair_tables(scored, np.array([0, 2]), np.array([1, 3]), np.array([3, 1]))
        write_data(tmp_path / "out.parquet", tables, [{"command": "test", "judges": ["gold"]}])
        pairs = read_preferences(tmp_path / "out.parquet")
        assert list(pairs.encoded) == [(png(1), png(3)), (png(9), png(11))]
        assert pairs.preference_0.tolist() == [1, 0]
        assert list(pairs.captions) == ["one", "three"]
        assert pairs.scores["level"].tolist() == [[0.9, 0.1], [0.1, 0.3]]
        assert pairs.sources == [("maker 1", "maker 3")] * 2
        assert pairs.judges == ("gold",)

    def test_scores_are_added_to_all_columns_of_the_kept_rows(self, tmp_path: Path) -> None:
        columns = preference_columns(130)  # more than one row group
        columns["label_0"][1] = 0.5
        columns["user"] = list(range(130))
        inspected = inspect_data(open_source(write_parquet(tmp_path / "in.parquet", columns)), "in", None)
        data = kept_data(inspected)
        scores = np.arange(258.0).reshape(129, 2)
        labels = np.resize([1.0, 0.5, 0.0], 129)
        write_data(tmp_path / "out.parquet", scored_tables(inspected, data, {"level": scores}, labels), [])
        written = pq.read_table(tmp_path / "out.parquet").to_pydict()
        assert written["user"] == [0, *range(2, 130)]
        assert written["jpg_1"] == [columns["jpg_1"][row] for row in written["user"]]
        assert written["score_level_1"] == list(range(1, 258, 2))
        assert written["label_0"] == labels.tolist()
        assert read_preferences(tmp_path / "out.parquet").report.ties_dropped == 43

    def test_the_same_step_is_recognised_and_another_refused(self, lists: PreferenceData, tmp_path: Path) -> None:
        output = tmp_path / "out.parquet"
        step = {"command": "data rank", "metrics": {"gold": {"version": 1}}, "judges": ["gold"]}
        assert not already_made(output, step)
        tables = pair_tables(lists, np.array([0]), np.array([1]), np.array([3]))
        write_data(output, tables, [{"command": "data generate"}, {**step, "found": {"pairs": 1}}])
        assert already_made(output, step)
        other = {**step, "metrics": {"gold": {"version": 2}}}
        with pytest.raises(UserError, match=r"differs in metrics.gold.version \(1 and 2\); delete it"):
            already_made(output, other)

    def test_a_file_of_unknown_origin_is_not_overwritten(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "out.parquet", preference_columns(3))
        with pytest.raises(UserError, match="how it was made, which it does not record; delete it"):
            already_made(path, {"command": "data score"})

    def test_another_suffix_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"out.csv' must end in .parquet"), held(tmp_path / "out.csv"):
            pass


class TestCheck:
    def facts(self, tmp_path: Path, columns: dict[str, list[Any]], prompts: list[str] | None = None) -> dict[str, str]:
        path = write_parquet(tmp_path / "pairs.parquet", columns)
        return dict(check_lines(inspect_data(open_source(path), "pairs", None), prompts, "give --prompts"))

    def test_every_oddity_is_counted(self, tmp_path: Path) -> None:
        columns = preference_columns(8)
        columns["caption"] = ["A  Bee", "a bee", "a cat", "a cat", "a dog", "a dog", "a fox", "a fox"]
        columns["label_0"] = [1.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
        columns["jpg_0"][5], columns["jpg_1"][5] = columns["jpg_0"][4], columns["jpg_1"][4]  # repeats row 4
        columns["jpg_1"][6] = columns["jpg_0"][6]
        columns["jpg_1"][7] = b"broken"
        columns["split"] = ["train"] * 5 + ["test"] * 3
        columns["model_0"], columns["model_1"] = ["sdxl"] * 8, ["sd15"] * 8
        columns["score_gold_0"], columns["score_gold_1"] = [1.0] * 8, [2.0] * 8
        columns["score_clip_0"], columns["uid"] = [1.0] * 8, ["a"] * 8
        facts = self.facts(tmp_path, columns, ["a bee", "an owl", "a  CAT", "a bee"])
        assert facts["rows"] == "8"
        assert facts["kept"] == "6"
        assert facts["ties, dropped"] == "1"
        assert facts["undecodable, skipped"] == "1: row 7 jpg_1"
        assert facts["repeated rows, kept"] == "1"
        assert facts["rows of equal images, kept"] == "1"
        assert facts["labels"] == "image 0 is preferred in 83.3 % of 6 pairs"
        assert facts["distinct captions"] == "4"
        assert facts["evaluation prompts among the captions"] == "2 of 3: a bee, a  CAT"
        assert facts["sizes (height x width)"] == "8x8: 12"
        assert facts["sources"] == "sdxl: 8, sd15: 8"
        assert facts["splits"] == "train: 5, test: 3"
        assert facts["scores"] == "gold"
        assert facts["columns that are not read"] == "2: score_clip_0, uid"

    def test_unlabelled_data_and_no_prompts_are_said_so(self, tmp_path: Path) -> None:
        columns = preference_columns(3)
        del columns["label_0"]
        facts = self.facts(tmp_path, columns)
        assert facts["labels"].startswith(
            "none; most algorithms need label_0, and --columns label_0=1 says that image 0"
        )
        assert facts["evaluation prompts among the captions"] == "not looked for: give --prompts"
        columns["jpg_2"] = columns["jpg_0"]
        assert self.facts(tmp_path, columns)["labels"] == "none"

    def test_empty_captions_are_counted(self, tmp_path: Path) -> None:
        columns = preference_columns(5)
        assert self.facts(tmp_path, columns)["empty captions, kept"] == "0"
        columns["caption"][1], columns["caption"][3] = "", " \n"
        assert self.facts(tmp_path, columns)["empty captions, kept"].startswith(
            "2: trained like pairs whose caption is"
        )


def test_an_epochs_order_is_what_it_was_before_it_was_kept() -> None:
    order = [permutation(10, 3, "order", epoch).tolist() for epoch in (0, 1)]
    assert [batch_rows(10, 4, 3, step) for step in (2, 0, 1)] == [
        order[0][8:] + order[1][:2],
        order[0][:4],
        order[0][4:8],
    ]

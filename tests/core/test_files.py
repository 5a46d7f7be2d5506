from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.core.errors import UserError
from bench.core.files import (
    append_lines,
    keep_lines,
    read_json,
    read_lines,
    replace_file,
    replace_folder,
    space_checked,
    sweep,
    write_json,
)
from bench.core.locks import exclusive
from bench.core.signs import here

HOLD = """
import sys, time
from pathlib import Path
from bench.core.locks import exclusive
with exclusive(Path(sys.argv[1]), "works"):
    print("held", flush=True)
    time.sleep(600)
"""

KILLED = """
import os, sys
from pathlib import Path
from bench.core.files import replace_file
replace_file(Path(sys.argv[1]), lambda beside: (beside.write_text("half"), os.kill(os.getpid(), 9)))
"""

Replace = Callable[[Path, Callable[[Path], object]], None]


def fail_half_way(path: Path) -> None:
    path.write_text("half")
    raise RuntimeError("the writer failed")


def with_lock(lock: Path) -> None:
    with exclusive(lock, "works here; wait"):
        pass


def fill_the_disk(path: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as stream:
        stream.write(b"x")


class TestReplaceFile:
    def test_the_new_content_takes_the_place_of_the_old(self, tmp_path: Path) -> None:
        file = tmp_path / "sub" / "a.txt"
        replace_file(file, lambda beside: beside.write_text("one"))
        replace_file(file, lambda beside: beside.write_text("two"))
        assert file.read_text() == "two"
        assert os.listdir(file.parent) == ["a.txt"]

    def test_a_writer_that_raises_leaves_the_old_file(self, tmp_path: Path) -> None:
        file = tmp_path / "a.txt"
        file.write_text("old")
        with pytest.raises(RuntimeError, match="the writer failed"):
            replace_file(file, fail_half_way)
        assert file.read_text() == "old"

    def test_a_writer_that_raises_makes_no_new_file(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="the writer failed"):
            replace_file(tmp_path / "a.txt", fail_half_way)
        assert not (tmp_path / "a.txt").exists()

    def test_the_old_file_is_there_until_the_new_one_is_whole(self, tmp_path: Path) -> None:
        file = tmp_path / "a.txt"
        file.write_text("old")
        seen = []

        def write(beside: Path) -> None:
            beside.write_text("new")
            seen.append(file.read_text())

        replace_file(file, write)
        assert seen == ["old"]
        assert file.read_text() == "new"

    def test_a_writer_that_raises_leaves_nothing_beside(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="the writer failed"):
            replace_file(tmp_path / "a.txt", fail_half_way)
        assert os.listdir(tmp_path) == []

    def test_what_a_killed_writer_left_is_removed_by_who_holds_the_lock(self, tmp_path: Path) -> None:
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "sub" / "a.txt")], check=False)
        (left,) = (tmp_path / "sub").iterdir()
        assert left.read_text() == "half"
        sweep(tmp_path, "b.txt*")
        assert left.exists()
        sweep(tmp_path)
        assert not left.exists()

    def test_writers_at_once_do_not_meet(self, tmp_path: Path) -> None:
        """Every one of 200 writes succeeds, and a reader always finds one of them whole."""
        file = tmp_path / "a.json"
        write_json(file, [-1] * 1000)

        def write(number: int) -> None:
            for _ in range(25):
                write_json(file, [number] * 1000)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            writers = [pool.submit(write, number) for number in range(8)]
            while not all(each.done() for each in writers):
                assert len(set(read_json(file))) == 1
        for each in writers:
            each.result()
        assert os.listdir(tmp_path) == ["a.json"]

    def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(self, tmp_path: Path) -> None:
        file = tmp_path / "a.txt"
        file.write_text("old")
        with pytest.raises(UserError, match=r"the disk is full: .*a\.txt could not be written; free some space"):
            replace_file(file, fill_the_disk)
        assert file.read_text() == "old"

    def test_any_other_trouble_keeps_its_own_exception(self, tmp_path: Path) -> None:
        with pytest.raises(IsADirectoryError):
            replace_file(tmp_path / "a.txt", lambda beside: tmp_path.write_text("x"))


class TestPlacesThatCannotBeWritten:
    """/sys refuses even the administrator."""

    @pytest.mark.parametrize("replace", [replace_file, replace_folder])
    def test_below_a_file(self, replace: Replace, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("a bee")
        sentence = "a.txt is a file, not a folder; give another --output or --runs"
        with pytest.raises(UserError, match=sentence):
            replace(tmp_path / "a.txt" / "b", fail_half_way)
        with pytest.raises(UserError, match=r"a.txt/b cannot be created \(Not a directory\); give another --output or"):
            replace(tmp_path / "a.txt" / "b" / "c", fail_half_way)

    @pytest.mark.parametrize("replace", [replace_file, replace_folder])
    def test_where_the_system_refuses(self, replace: Replace) -> None:
        with pytest.raises(UserError, match=r"^/sys/runs cannot be created \(.*\); give another --output or --runs$"):
            replace(Path("/sys/runs/b"), fail_half_way)
        with pytest.raises(UserError, match=r"^/sys/b cannot be written \(.*\); give another --output or --runs$"):
            replace(Path("/sys/b"), lambda beside: beside.open("wb"))

    def test_a_refusal_that_only_the_text_of_an_error_tells(self) -> None:
        def save(beside: Path) -> None:
            save_file({"a": torch.zeros(1)}, beside)

        with pytest.raises(UserError, match=r"/sys/b.safetensors cannot be written \(Permission denied\)"):
            replace_file(Path("/sys/b.safetensors"), save)

    def test_a_lock_is_refused_while_it_is_held_and_ends_with_its_process(self, tmp_path: Path) -> None:
        lock = tmp_path / "folder" / ".lock"
        holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE)
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            for _ in range(2):  # being refused takes nothing from the holder, nor from what is said of it
                with pytest.raises(UserError, match=f"^process {holder.pid} already works here; wait"):
                    with_lock(lock)
        finally:
            holder.kill()
            holder.communicate()
        for _ in range(2):
            with exclusive(lock, "works here; wait"):
                assert lock.read_text() == f"{os.getpid()} {here()}"
            assert lock.read_text() == ""

    def test_a_lock_and_a_log(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("a bee")
        with pytest.raises(UserError, match=r"^/sys cannot be written"), exclusive(Path("/sys/.lock"), "writes"):
            pass
        with pytest.raises(UserError, match="a.txt is a file"), exclusive(tmp_path / "a.txt" / ".lock", "writes"):
            pass
        with pytest.raises(UserError, match=r"a.txt/log cannot be written \(Not a directory\)"):
            append_lines(tmp_path / "a.txt" / "log", ["{}"])


class TestReplaceFolder:
    def test_the_new_folder_takes_the_place_of_the_old(self, tmp_path: Path) -> None:
        folder = tmp_path / "weights"
        replace_folder(folder, lambda beside: (beside / "old.txt").write_text("1"))
        replace_folder(folder, lambda beside: (beside / "new.txt").write_text("2"))
        assert os.listdir(folder) == ["new.txt"]
        assert os.listdir(tmp_path) == ["weights"]

    def test_a_writer_that_raises_leaves_the_old_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "weights"
        replace_folder(folder, lambda beside: (beside / "old.txt").write_text("1"))
        with pytest.raises(RuntimeError, match="the writer failed"):
            replace_folder(folder, lambda beside: fail_half_way(beside / "new.txt"))
        assert os.listdir(folder) == ["old.txt"]

    def test_what_a_crash_left_beside_does_not_get_in(self, tmp_path: Path) -> None:
        folder = tmp_path / "weights"
        with pytest.raises(RuntimeError, match="the writer failed"):
            replace_folder(folder, lambda beside: fail_half_way(beside / "half.txt"))
        assert not folder.exists()
        replace_folder(folder, lambda beside: (beside / "new.txt").write_text("2"))
        assert os.listdir(folder) == ["new.txt"]

    def test_a_full_disk_is_one_sentence_and_leaves_the_old_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "weights"
        replace_folder(folder, lambda beside: (beside / "old.txt").write_text("1"))
        with pytest.raises(UserError, match="the disk is full: .*weights could not be written"):
            replace_folder(folder, fill_the_disk)
        assert os.listdir(folder) == ["old.txt"]


class TestLines:
    def test_records_come_back_in_the_order_of_their_lines(self, tmp_path: Path) -> None:
        file = tmp_path / "log.jsonl"
        append_lines(file, ['{"step": 0}'])
        append_lines(file, ['{"step": 1}', '{"step": 2}'])
        assert [record["step"] for record in read_lines(file)] == [0, 1, 2]

    @pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\r", "\x1e"])
    def test_a_text_may_hold_any_separator_of_lines(self, tmp_path: Path, separator: str) -> None:
        records = [{"prompt": f"a bee{separator}on red"}, {"prompt": "a cat"}]
        append_lines(tmp_path / "a.jsonl", [json.dumps(record, ensure_ascii=False) for record in records])
        assert read_lines(tmp_path / "a.jsonl") == records

    def test_a_file_that_is_not_there_holds_no_records(self, tmp_path: Path) -> None:
        assert read_lines(tmp_path / "log.jsonl") == []

    @pytest.mark.parametrize("torn", ['{"step": 2, "lo', "{", '{"step": 2}'])
    def test_a_last_line_that_a_crash_cut_short_is_left_out(self, tmp_path: Path, torn: str) -> None:
        file = tmp_path / "log.jsonl"
        append_lines(file, ['{"step": 0}', '{"step": 1}'])
        with file.open("a") as stream:
            stream.write(torn)
        assert [record["step"] for record in read_lines(file)] == [0, 1]

    def test_a_broken_line_in_the_middle_is_not_passed_over(self, tmp_path: Path) -> None:
        file = tmp_path / "log.jsonl"
        file.write_text('{"step": 0\n{"step": 1}\n')
        with pytest.raises(json.JSONDecodeError):
            read_lines(file)

    def test_keeping_some_records_drops_the_others_and_the_torn_line(self, tmp_path: Path) -> None:
        file = tmp_path / "log.jsonl"
        file.write_text('{"step": 0, "who": "été"}\n{"step": 1}\n{"st')
        keep_lines(file, read_lines(file)[:1])
        append_lines(file, ['{"step": 1}'])
        assert read_lines(file) == [{"step": 0, "who": "été"}, {"step": 1}]

    def test_a_full_disk_is_one_sentence(self) -> None:
        with pytest.raises(UserError, match="the disk is full: /dev/full could not be written; free some space"):
            append_lines(Path("/dev/full"), ['{"step": 0}'])


def test_json_values_come_back_as_they_were(tmp_path: Path) -> None:
    value = {"text": "a bee 🐝", "numbers": [1, 2.5, None], "nested": {"yes": True}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert read_json(tmp_path / "a.json") == 1


@pytest.mark.parametrize("error", [RuntimeError, OSError])
def test_a_full_disk_that_only_the_text_of_an_error_tells_is_one_sentence(error: type[Exception]) -> None:
    with pytest.raises(UserError, match="the disk is full: cache could not be written"), space_checked(Path("cache")):
        raise error("Data processing error: IO Error: No space left on device (os error 28)")
    with pytest.raises(UserError, match="the disk is full: cache could not be written"), space_checked(Path("cache")):
        raise error("16384 requested and 4968 written")  # numpy
    with pytest.raises(error, match="Timer expired"), space_checked(Path("cache")):
        raise error("IO Error: Timer expired (os error 62)")

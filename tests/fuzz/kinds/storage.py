"""Storage that refuses: no permission, a full disk, names that are too long, too little memory."""

from __future__ import annotations

from tests.fuzz.place import Expect, Place, kind, picture
from tests.fuzz.versions import one_step


def writer(place: Place) -> list[str]:
    for number in range(3):
        place.write(f"images/{number}.png", picture(number))
    place.parquet()
    place.write("p.txt", "a red bee\na cat\n")
    return place.rng.choice([
        ["score", "images", "--metrics", "aesthetic", "--model", "tiny"],
        ["data", "score", "pairs.parquet", "--metrics", "aesthetic", "--model", "tiny", "--output", "o.parquet"],
        ["data", "check", "pairs.parquet"],
        ["data", "rank", "pairs.parquet", "--judge", "aesthetic", "--model", "tiny", "--output", "o.parquet"],
        ["run", "--algo", "dpo", "--model", "tiny", "--data", "pairs.parquet", "--prompts", "p.txt", "--metrics", "aesthetic",
         "--sampling-steps", "1", *one_step()],
        ["report", "--output", "r.html"],
    ])  # fmt: skip


@kind(10, 8)
def a_full_disk(place: Place) -> Expect:
    words = writer(place)
    place.runs() if words[0] == "report" else None
    return Expect(words, (0, 2), limits={"file_size": place.rng.choice([0, 100, 300, 500, 1000, 2000, 5000, 20000])})


@kind(10, 5)
def folders_without_permission(place: Place) -> Expect:
    words = writer(place)
    target = place.rng.choice(["runs", "."])
    (place.folder / "runs").mkdir(exist_ok=True)
    (place.folder / target).chmod(0o555)
    return Expect(words, (0, 2), limits={"unprivileged": 1})


@kind(10, 8)
def files_without_permission(place: Place) -> Expect:
    name = place.rng.choice(
        [
            "pairs.jsonl",
            "pairs.parquet",
            "p.txt",
            "p.csv",
            "0.png",
            "train.json",
            "images/0.png",
            "images/0.txt",
            "w.safetensors",
            "images",
        ]
    )
    place.lines(place.records())
    words = writer(place)
    place.write("train.json", "[]")
    place.write("p.csv", "prompt\na\n")
    for number in range(3):
        place.write(f"images/{number}.txt", "a bee")
    place.write("w.safetensors", "")
    words = {
        "pairs.jsonl": ["data", "check", name], "pairs.parquet": ["data", "check", name], "train.json": ["data", "check", name],
        "p.txt": ["eval", "--model", "tiny", "--prompts", name], "p.csv": ["eval", "--model", "tiny", "--prompts", name],
        "0.png": ["data", "check", "pairs.jsonl"], "images/0.png": ["score", "images", "--metrics", "aesthetic", "--model", "tiny"],
        "images/0.txt": ["score", "images", "--metrics", "pickscore", "--model", "tiny"],
        "w.safetensors": ["eval", "--model", "tiny", "--weights", name],
        "images": ["score", "images", "--metrics", "aesthetic", "--model", "tiny"],
    }[name]  # fmt: skip
    path = place.folder / name
    path.chmod(0)
    return Expect(words, (0, 2), says=(name.rpartition("/")[2],), limits={"unprivileged": 1})


@kind(10, 4)
def records_without_permission(place: Place) -> Expect:
    runs = place.runs()
    files = [
        path
        for path in sorted(runs.rglob("*"))
        if path.is_file() and ".cache" not in path.parts and path.suffix in ("", ".json", ".jsonl")
    ]
    place.rng.choice(files).chmod(0)
    return Expect(
        place.rng.choice([["report"], ["report", "--output", "r.html"], ["rescore"]]),
        (0, 2),
        limits={"unprivileged": 1},
    )


@kind(10, 3)
def low_memory(place: Place) -> Expect:
    return Expect(writer(place), (0, 2), limits={"memory": place.rng.choice([1 << 20, 8 << 20, 32 << 20, 64 << 20])})


@kind(10, 3)
def long_names(place: Place) -> Expect:
    name = place.rng.choice(["n", "o"]) * place.rng.choice([244, 247, 250, 251, 255])
    words = writer(place)
    if words[0] == "report":
        place.runs()
        return Expect(["report", "--output", name[:-5] + ".html"], (0, 2))
    if words[0] == "run" or words[:2] == ["data", "check"]:
        place.parquet(f"{name[:-8]}.parquet")
        return Expect(["data", "check", f"{name[:-8]}.parquet"], (0,))
    where = words.index("--output") + 1 if "--output" in words else None
    output = f"{name[:-8]}.parquet"
    words = [*words[:where], output, *words[where + 1 :]] if where else [*words, "--output", output]
    return Expect(words, (0, 2))

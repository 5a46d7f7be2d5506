"""Experiment files, folders of studies, and online runs."""

from __future__ import annotations

import json
import shutil

from tests.fuzz.place import Expect, Place, kind
from tests.fuzz.versions import one_step

FILE = """\
model = "tiny"
data = "pairs.parquet"
prompts = "p.txt"
metrics = ["aesthetic"]

[images]
steps = 1

[settings]
steps = 1

[[algorithms]]
name = "dpo"
"""
VALUES = (
    "3", '""', "[]", "{}", "true", "nan", "inf", "1e400", "-1", "9" * 400, "[[1]]", "[[[[1]]]]", "1979-05-27", "07:32:00", '"../x"', '"\\u001b[31mx"',
    "{ a = { b = 1 } }", '"' + "x" * 5000 + '"', '[1, "a", true]', '"\\u0000"', '["tiny", "tiny"]', '"/dev/null"', '"[/x]"', "[nan]", "0x10", "[{}]",
)  # fmt: skip
FIELDS = (
    "model", "seeds", "data", "columns", "prompts", "metrics", "images", "init", "limit", "placebo", "same_code", "runs", "track", "executor",
    "algorithms", "settings", "unknown",
)  # fmt: skip


def study(
    place: Place, text: str | bytes, *says: str, outcomes: tuple[int, ...] = (2,), name: str = "x.toml"
) -> Expect:
    """A command that reads an experiment file; with the file's runs, without starting any where it may be right."""
    place.parquet()
    place.write("p.txt", "a red bee\na cat\n")
    place.write(name, text)
    words = [["plan", name], ["run", name, "--print-commands"], ["run", name, "--save", "y.toml"]]
    if 0 not in outcomes:
        words += [["run", name], ["run", name, "--jobs", "2"], ["run", name, "--limit", "4"]]  # which repairs nothing
    return Expect(place.rng.choice(words), outcomes, refusal_says=says)


@kind(8, 5)
def experiment_files_that_are_not_toml(place: Place) -> Expect:
    lines = FILE.splitlines(keepends=True)
    text = place.rng.choice([
        b"", b"{", b"[" * 60_000, b"a = " + b"[" * 60_000, b"a = " + b"9" * 5000 + b"\n", b"a = 0x" + b"f" * 5000 + b"\n", FILE.encode("utf-16"),
        FILE.encode("utf-32"), b"\xff" + FILE.encode(), b"\0\0", b'a = "', FILE.encode() + b'\nname = "dpo"\n', b"a = 1\r", b"#\n" * 50_000 + b"a = 1\n",
        b"x" * (2 << 20), b"[a]\n[a]\n", b'a = "\\ud83d"\n', b"a.b.c.d = 1\na.b = 2\n", FILE.replace('"tiny"', "'''tiny").encode(),
        "".join(lines[:4] + lines[5:]).encode(), b".".join([b"a"] * 20_000) + b" = 1\n", b"{}", b"null", b"\xef\xbb\xbf" + FILE.encode(), FILE.encode()[:-3],
    ])  # fmt: skip
    whole = text in (FILE.encode(), "".join(lines[:4] + lines[5:]).encode(), b"\xef\xbb\xbf" + FILE.encode())
    return study(place, text, "x.toml", outcomes=(0, 2) if whole else (2,))


@kind(8, 7)
def odd_fields_of_experiments(place: Place) -> Expect:
    field, value = place.rng.choice(FIELDS), place.rng.choice(VALUES)
    line = f"{field} = {value}\n"
    stated = [each for each in FILE.splitlines(keepends=True) if not each.startswith(f"{field} ")]
    text = "".join(stated)
    if field in ("images", "settings"):
        text = text.replace(f"[{field}]\nsteps = 1\n", "")
    if field == "algorithms":
        text = text.replace('[[algorithms]]\nname = "dpo"\n', "")
    return study(place, line + text, outcomes=(0, 2))


@kind(8, 5)
def odd_settings_of_experiments(place: Place) -> Expect:
    value = place.rng.choice(VALUES)
    old, new = place.rng.choice([
        ("[settings]\nsteps = 1", f"[settings]\nsteps = {value}"), ("[settings]\n", f"[settings]\nbeta = {value}\n"), ("[images]\nsteps = 1", f"[images]\nsteps = {value}"),
        ('name = "dpo"', f"name = {value}"), ('name = "dpo"', f'name = "dpo"\nlabel = {value}'), ('name = "dpo"', f'name = "dpo"\nsettings = {value}'),
        ("[images]\n", f"[images]\nheight = {value}\n"), ("[settings]\n", f"[settings]\nbudget = {value}\n"), ("[settings]\n", f"[settings]\nlabels = {value}\n"),
    ])  # fmt: skip
    return study(place, FILE.replace(old, new), outcomes=(0, 2))


@kind(5, 3)
def experiments_without_end(place: Place) -> Expect:
    many = ", ".join(map(str, range(1, 3000)))
    text = place.rng.choice([
        FILE.replace("[settings]\n", f"[settings]\nbeta = [{many}]\nlearning_rate = [{many}]\nweight_decay = [{many}]\n"),
        f"seeds = [{many}]\n" + FILE.replace("[settings]\n", f"[settings]\nbeta = [{many}]\nlearning_rate = [{many}]\n"),
        "# x\n" * 30_000 + FILE.replace("steps = 1", "steps = true"), FILE.replace("model", "nodel") + "x = 1\n" * 0 + "# x\n" * 30_000,
        FILE.replace("steps = 1", "steps = 1e26"), "seeds = [" + "9" * 40 + "]\n" + FILE, FILE.replace('metrics = ["aesthetic"]', "metrics = [" + '"aesthetic", ' * 50_000 + "]"),
        "data = [\n" + "1,\n" * 100_000 + "]\n" + FILE.replace('data = "pairs.parquet"\n', ""),
    ])  # fmt: skip
    return study(place, text, "x.toml")


@kind(4, 4)
def experiments_that_lead_elsewhere(place: Place) -> Expect:
    name = place.rng.choice(
        [
            "x.toml",
            "..toml",
            "...toml",
            ".toml",
            "[red].toml",
            "a b.toml",
            "\x1b[31m.toml",
            "x\n.toml",
            "-x.toml",
            "x" * 250 + ".toml",
        ]
    )
    text = FILE
    if name == "x.toml":
        label = place.rng.choice(
            ["../x", "../../../x", "/tmp/fuzz-x", ".", "..", "a/b", "\\\\x", "\\u001b[31m", "x" * 255, "\\u202ex"]
        )
        text += f'label = "{label}"\n'
    place.parquet()
    place.write("p.txt", "a red bee\na cat\n")
    if len(name.encode()) <= 255:
        place.write(name, text)
    victim = place.base / "outside"
    if name == "x.toml" and place.rng.random() < 0.4:
        place.write(name, FILE)
        where = place.rng.choice(["runs/.studies", "runs/.studies/x", "runs/.studies/x/cells.json"])
        (place.folder / where).parent.mkdir(parents=True)
        (place.folder / where).symlink_to(victim / "victim" if where.endswith("json") else victim)
        return Expect(["run", name, "--jobs", "1"], (2,))
    typed = name if not name.startswith("-") else f"./{name}"
    words = place.rng.choice([["run", typed, "--print-commands"], ["plan", typed]])
    return Expect(words, (0, 2))


def strange_study(place: Place) -> str:
    """A study beside finished runs with odd cells; its name."""
    runs = place.runs()
    name = place.rng.choice(["s", "[red]s", "\x1b[31ms", "s" * 200, ".s"])
    cell = {
        "name": "tiny/dpo/one/seed-0",
        "words": ["run", "--algo", "dpo"],
        "protocol": "x",
        "metrics": ["aesthetic"],
        "after": None,
        "processes": 1,
    }
    change: dict[str, object] = place.rng.choice([
        {}, {"name": "../../x"}, {"name": "/tmp/fuzz-x"}, {"name": 3}, {"name": "\x1b]0;x\x07"}, {"words": "run"}, {"words": [1]}, {"words": ["\x1b[31m; rm -rf ~"]},
        {"protocol": "../../.."}, {"metrics": None}, {"processes": 10**30}, {"processes": -1}, {"processes": "x"}, {"after": 3}, {"more": 1}, {"name": ""},
        {"name": "x" * 5000}, {"name": "a\0b"}, {"protocol": "a\0b"}, {"protocol": ""},
    ])  # fmt: skip
    content = place.rng.choice(
        [json.dumps([cell | change])] * 8
        + ["", "{", "[]", "null", "[1]", "[" * 100_000, "9" * 6000, '[{"name": "\\ud83d"}]']
    )
    folder = runs / ".studies" / name
    (folder / "logs" / "tiny" / "dpo" / "one").mkdir(parents=True)
    (folder / "cells.json").write_text(content)
    attempt = place.rng.choice(
        [
            '{"host": "h", "process": 1, "code": 2}',
            "{",
            "",
            '{"host": 1}',
            '{"host": "h", "process": -1, "code": null}',
            "[" * 90_000,
        ]
    )
    (folder / "logs" / "tiny" / "dpo" / "one" / "seed-0.json").write_text(attempt)
    log = place.rng.choice(
        [b"", b"error: \x1b[31m[/x]\n", b"\xff\xfe", b"x" * 100_000, b"a\rb\n", "\u202ex\n".encode()]
    )
    (folder / "logs" / "tiny" / "dpo" / "one" / "seed-0.log").write_bytes(log)
    return name


@kind(8, 6)
def studies_of_strangers(place: Place) -> Expect:
    name = strange_study(place)
    return Expect(place.rng.choice([["status"], ["status", "--failed"], ["status", name]]), (0, 2))


@kind(8, 3)
def unfinished_runs_of_strangers(place: Place) -> Expect:
    runs = place.runs()
    run = runs / "tiny" / "dpo" / "one" / "seed-0"
    (run / "DONE").unlink()
    name = place.rng.choice(["train.jsonl", "config.json", "ledger.json", ".lock"])
    content = place.rng.choice(
        [
            b"",
            b"{",
            b"[]\n",
            b"{}\n",
            b"1\n",
            b"\xff\n",
            b"9" * 6000 + b"\n",
            b"[" * 90_000 + b"\n",
            b'{"step": "x", "time": null}\n',
            b'{"step": 1e400}\n',
        ]
    )
    (run / name).write_bytes(content)
    return Expect(place.rng.choice([["status"], ["report"], ["status"]]), (0, 2))


@kind(8, 3)
def runs_that_go_on_from_damage(place: Place) -> Expect:
    runs = place.runs()
    for name in ("pairs.parquet", "prompts.txt"):
        shutil.copy(place.finished.parent / name, place.folder / name)
    run = runs / "tiny" / "dpo" / "one" / "seed-0"
    (run / "DONE").unlink()
    shutil.rmtree(run / "weights")
    files = [path for path in sorted(runs.rglob("*")) if path.is_file() and ".lock" not in path.name]
    cached = [path for path in files if ".cache" in path.parts]
    path = place.rng.choice(place.rng.choice([files, cached or files]))
    content = path.read_bytes()
    path.write_bytes(
        place.rng.choice([b"", content[: len(content) // 2], b"\xff" * 16 + content[16:], b"[" * 1000, content + b"x"])
    )
    words = ["run", "--algo", "dpo", "--model", "tiny", "--name", "one", "--data", "pairs.parquet", "--prompts", "prompts.txt", "--metrics", "aesthetic",
             "--sampling-steps", "2", *one_step()]  # fmt: skip
    return Expect(words, (0, 2))


@kind(8, 5)
def online_runs(place: Place) -> Expect:
    place.write("p.txt", place.rng.choice(["a red bee\na cat\n", "a red bee\n", "", "\xff", "a\n" * 3]))
    place.write(
        "captions.jsonl",
        place.rng.choice(['{"caption": "a"}\n', '{"prompt": 3}\n', "", "{", '{"caption": "\\ud83d"}\n']),
    )
    typed = place.rng.choice([
        ["--set", "rewards=nope"], ["--set", "rewards="], ["--set", "rewards=aesthetic,aesthetic"], ["--set", "rewards=imagereward", "--set", "group=1"],
        ["--set", "rewards=imagereward", "--set", "group=1e26"], ["--set", "rewards=imagereward", "--set", "reward_weights=nan"],
        ["--set", "rewards=imagereward", "--set", "reward_weights=1,2,3"], ["--set", "rewards=imagereward", "--budget", "samples=1e26"],
        ["--set", "rewards=imagereward", "--budget", "pairs=-1"], ["--set", "rewards=imagereward", "--set", "sampling_steps=1001"],
        ["--set", "rewards=imagereward", "--set", "guidance_scale=1e30"], ["--set", "rewards=imagereward", "--set", "updates=0"],
        ["--set", "rewards=imagereward", "--data", "captions.jsonl"], ["--set", "rewards=imagereward", "--data", "nowhere.parquet"],
        ["--set", "rewards=imagereward", "--prompts", "nope.txt"], ["--set", "rewards=[/x]"], ["--set", "rewards=imagereward", "--set", "combination=x"],
    ])  # fmt: skip
    words = ["--algo", place.rng.choice(["ddpo", "ddpo", "nft", "awm"]), "--model", "tiny", *typed]
    if not {"--prompts", "--data"} & set(typed) and place.rng.random() < 0.3:
        return Expect(["plan", *words], (0, 2))
    prompts = [] if "--prompts" in typed else ["--prompts", "p.txt"]
    return Expect(["run", *words, *prompts, "--set", "steps=1"], (2,))

"""What is wrong with a checkpoint is said in one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import local_hub
from PIL import Image
from safetensors.torch import load_file, save_file

from bench.core.errors import UserError
from bench.scoring.metric import Metric
from metrics.aesthetic import Aesthetic
from metrics.clip import ClipScore
from metrics.hpsv2 import VIT_H_14, HPSv2, HPSv20, clip_config
from metrics.imagereward import ImageReward
from metrics.pickscore import PickScore

CPU = torch.device("cpu")
SCORERS: dict[str, tuple[type[Metric], str]] = {
    "pickscore": (PickScore, "model.safetensors"),
    "clip": (ClipScore, "model.safetensors"),
    "hpsv2": (HPSv2, "HPS_v2.1_small.pt"),
    "imagereward": (ImageReward, "ImageReward.pt"),
    "aesthetic": (Aesthetic, "head.pth"),
}


def read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return load_file(path)
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded.get("state_dict", loaded)


def write(path: Path, tensors: dict[str, Any]) -> None:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)


@pytest.fixture(params=SCORERS)
def copied(request: pytest.FixtureRequest, checkpoints: Path, tmp_path: Path) -> tuple[type[Metric], Path]:
    """A scorer's class and the weights file of a copy that may be spoilt."""
    kind, name = SCORERS[request.param]
    folder = shutil.copytree(checkpoints / request.param, tmp_path / request.param)
    return kind, folder / name


def refusal(kind: type[Metric], checkpoint: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        kind.load(str(checkpoint), device=CPU)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_and_an_unexpected_key_are_listed(copied: tuple[type[Metric], Path]) -> None:
    kind, path = copied
    tensors = read(path)
    gone = min(name for name in tensors if "position_ids" not in name)
    tensors["something.else"] = tensors.pop(gone)
    write(path, tensors)
    message = refusal(kind, path.parent)
    assert f"missing {gone}" in message
    assert "unexpected something.else" in message


def test_a_wrong_shape_is_named(copied: tuple[type[Metric], Path]) -> None:
    kind, path = copied
    tensors = read(path)
    name = min(name for name in tensors if name.endswith("bias") and "in_proj" not in name)
    tensors[name] = torch.zeros(3)
    write(path, tensors)
    assert f"{name} (3,) instead of" in refusal(kind, path.parent)


def test_a_file_that_is_cut_off(copied: tuple[type[Metric], Path]) -> None:
    kind, path = copied
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "may be truncated" in refusal(kind, path.parent)


def test_an_empty_file(copied: tuple[type[Metric], Path]) -> None:
    kind, path = copied
    path.write_bytes(b"")
    assert "may be truncated" in refusal(kind, path.parent)


def test_a_folder_without_weights(copied: tuple[type[Metric], Path]) -> None:
    kind, path = copied
    path.unlink()
    assert "holds no weights file" in refusal(kind, path.parent)


@pytest.mark.parametrize("copied", ["hpsv2", "imagereward", "aesthetic"], indirect=True)
def test_a_file_of_other_things(copied: tuple[type[Metric], Path]) -> None:
    kind, path = copied
    torch.save({"epoch": 3}, path)
    assert "does not hold named tensors" in refusal(kind, path.parent)


@pytest.mark.parametrize("copied", ["hpsv2", "imagereward", "aesthetic"], indirect=True)
def test_nothing_is_unpickled_that_could_run_code(copied: tuple[type[Metric], Path]) -> None:
    kind, path = copied
    torch.save({"weight": Path("x")}, path)
    refusal(kind, path.parent)


@pytest.mark.parametrize("name", SCORERS)
def test_neither_path_nor_hub_id(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for checkpoint in ("nobody/nothing-of-this-name", "no such folder/at all/x"):
        assert "not a path on this machine" in refusal(SCORERS[name][0], checkpoint)


LOAD_PICKSCORE = """
import sys, torch
from bench import UserError
from metrics.pickscore import PickScore
try:
    PickScore.load(sys.argv[1], device=torch.device("cpu"))
except UserError as error:
    print(error)
"""


def test_a_gated_scorer_says_where_to_accept_its_terms(tmp_path: Path) -> None:
    (tmp_path / "models" / "someone" / "gated").mkdir(parents=True)
    (tmp_path / "models" / "someone" / "gated" / "GATED").touch()
    with local_hub(tmp_path, tmp_path / "cache") as environment:
        done = subprocess.run(
            [sys.executable, "-c", LOAD_PICKSCORE, "someone/gated"],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
    assert "checkpoint 'someone/gated' is not a path on this machine" in done.stdout
    assert "someone/gated is gated; accept its terms on the hub's page and log in" in done.stdout


def test_the_weights_file_itself_may_be_named(copied: tuple[type[Metric], Path]) -> None:
    kind, path = copied
    by_file, by_folder = kind.load(str(path), device=CPU), kind.load(str(path.parent), device=CPU)
    assert by_file.identity() == by_folder.identity()


def test_the_digest_tells_weights_apart(copied: tuple[type[Metric], Path]) -> None:
    kind, path = copied
    before = kind.load(str(path), device=CPU).identity()["weights"]
    tensors = read(path)
    name = min(name for name in tensors if name.endswith("bias"))
    write(path, tensors | {name: tensors[name] + 1e-6})
    assert kind.load(str(path), device=CPU).identity()["weights"] != before


@pytest.mark.parametrize(
    ("copied", "others"),
    [
        ("pickscore", ["open_clip_config.json", "med_config.json", "vocab.txt"]),
        ("hpsv2", ["config.json", "med_config.json", "vision_config.json", "vocab.txt"]),
        ("imagereward", ["config.json", "open_clip_config.json", "vocab.json", "merges.txt"]),
        ("aesthetic", ["config.json", "vocab.json", "tokenizer_config.json", "clip/vocab.txt"]),
    ],
    indirect=["copied"],
)
def test_the_digest_leaves_out_what_is_not_read(copied: tuple[type[Metric], Path], others: list[str]) -> None:
    kind, path = copied
    before = kind.load(str(path), device=CPU).identity()
    for name in [*others, "notes.json", "preprocessor_config.json"]:
        assert not (path.parent / name).exists()
        (path.parent / name).write_text("{}")
    assert kind.load(str(path), device=CPU).identity() == before


HPSV2_AROUND_CLIP = """
import sys, torch
from metrics.aesthetic import load_tower
from metrics.clip import ClipScore
from metrics.hpsv2 import HPSv2
cpu = torch.device("cpu")
print(HPSv2.load(sys.argv[1], device=cpu).identity()["weights"])
load_tower(ClipScore.published)
ClipScore.load(None, device=cpu)
print(HPSv2.load(sys.argv[1], device=cpu).identity()["weights"])
"""


def test_the_digest_leaves_out_what_other_metrics_download(checkpoints: Path, tmp_path: Path) -> None:
    """HPSv2 takes its tokenizer from the repository of the model of CLIPScore and of the aesthetic predictor."""
    alone = tmp_path / "hpsv2"
    alone.mkdir()
    for name in ("HPS_v2.1_small.pt", "open_clip_config.json"):
        shutil.copy(checkpoints / "hpsv2" / name, alone)
    published = shutil.copytree(checkpoints / "clip", tmp_path / "models" / ClipScore.published)
    (published / "special_tokens_map.json").write_text('{"pad_token": "<|endoftext|>"}')
    with local_hub(tmp_path, tmp_path / "cache") as environment:
        done = subprocess.run(
            [sys.executable, "-c", HPSV2_AROUND_CLIP, str(alone)],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split()
    assert before == after
    cached = {path.name for path in (tmp_path / "cache").rglob("snapshots/*/*")}
    assert cached >= {"config.json", "model.safetensors", "special_tokens_map.json"}


@pytest.mark.parametrize("name", ["pickscore", "clip"])
def test_transformers_checkpoints_need_their_configuration(name: str, checkpoints: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints / name, tmp_path / name)
    (folder / "config.json").unlink()
    assert "config.json is missing or is not a file" in refusal(SCORERS[name][0], folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"auto_map": {"AutoModel": "own.py"}}', "has auto_map, by which other code would be loaded"),
        ('{"model_cfg": {"embed_dim": 32}}', "does not describe a network"),
    ],
)
def test_a_broken_configuration(text: str, said: str, checkpoints: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints / "hpsv2", tmp_path / "hpsv2")
    (folder / "open_clip_config.json").write_text(text)
    assert said in refusal(HPSv2, folder)


def test_a_part_of_a_configuration_that_names_code(checkpoints: Path, tmp_path: Path) -> None:
    """The aesthetic predictor's tower is built from the part about images, whose attention a library would fetch from a hub."""
    folder = shutil.copytree(checkpoints / "aesthetic", tmp_path / "aesthetic")
    settings = json.loads((folder / "clip" / "config.json").read_text())
    settings["vision_config"]["attn_implementation"] = "owner/kernel"
    (folder / "clip" / "config.json").write_text(json.dumps(settings))
    assert "has attn_implementation, by which other code would be loaded" in refusal(SCORERS["aesthetic"][0], folder)


def test_an_end_of_text_that_is_not_the_tokenizers(checkpoints: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints / "pickscore", tmp_path / "pickscore")
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"]["eos_token_id"] = 5
    (folder / "config.json").write_text(json.dumps(settings))
    assert "eos_token_id 5" in refusal(PickScore, folder)


def test_a_broken_tokenizer(checkpoints: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints / "pickscore", tmp_path / "pickscore")
    (folder / "vocab.json").write_text("{")
    assert "tokenizer files" in refusal(PickScore, folder)


@pytest.mark.parametrize("gone", ["vocab.json", "merges.txt"])
@pytest.mark.parametrize("name", ["pickscore", "clip", "hpsv2"])
def test_a_tokenizer_without_a_part_of_its_vocabulary(name: str, gone: str, checkpoints: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints / name, tmp_path / name)
    (folder / gone).unlink()
    message = refusal(SCORERS[name][0], folder)
    assert (
        f"the tokenizer in {folder} is not complete: it needs tokenizer.json, or vocab.json and merges.txt" in message
    )


@pytest.mark.parametrize(
    ("name", "needed"),
    [("pickscore", "vocab.json and merges.txt"), ("hpsv2", "vocab.json and merges.txt"), ("imagereward", "vocab.txt")],
)
def test_a_cached_tokenizer_without_its_vocabulary(
    name: str, needed: str, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, the folder of the hub's cache holds what other programs downloaded; transformers would make a tokenizer of no words."""
    folder, cached = shutil.copytree(checkpoints / name, tmp_path / name), tmp_path / "cached"
    for file in ("vocab.json", "merges.txt", "vocab.txt", "tokenizer_config.json"):
        (folder / file).unlink(missing_ok=True)
    cached.mkdir()
    (cached / "tokenizer_config.json").write_text("{}")
    monkeypatch.setattr("metrics.checkpoints.download", lambda *_: cached)
    message = refusal(SCORERS[name][0], folder)
    assert (
        f"the tokenizer in {cached} is not complete: it needs tokenizer.json, or {needed}; download it again" in message
    )


@pytest.mark.parametrize("head", ["sac+logos+ava1-l14-linearMSE.pth", "aesthetic-model.pth"])
def test_the_published_head_is_chosen_among_others(head: str, checkpoints: Path, tmp_path: Path) -> None:
    """The authors' other heads have the same layout, and names that come first."""
    folder = shutil.copytree(checkpoints / "aesthetic", tmp_path / "aesthetic")
    (folder / "head.pth").rename(folder / head)
    alone = Aesthetic.load(str(folder), device=CPU).identity()
    write(folder / "ava+logos-l14-linearMSE.pth", {key: value + 1 for key, value in read(folder / head).items()})
    assert Aesthetic.load(str(folder), device=CPU).identity() == alone


@pytest.mark.parametrize(("copied", "other"), [("aesthetic", "a.pth"), ("hpsv2", "HPS_v2.1_a.pt")], indirect=["copied"])
def test_several_weights_files_are_refused(copied: tuple[type[Metric], Path], other: str) -> None:
    kind, path = copied
    shutil.copy(path, path.with_name(other))
    message = refusal(kind, path.parent)
    assert f"holds several weights files, {', '.join(sorted([path.name, other]))}; name one of them" in message
    kind.load(str(path), device=CPU)


@pytest.mark.parametrize("name", ["pickscore", "clip", "hpsv2"])
def test_a_tokenizer_of_more_tokens_than_the_network_knows(name: str, checkpoints: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints / name, tmp_path / name)
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    more = {f"token{place}": len(vocabulary) + place for place in range(50_000)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary | more), encoding="utf-8")
    assert "the network knows 49408" in refusal(SCORERS[name][0], folder)


def test_hpsv2_versions_do_not_take_each_others_files(checkpoints: Path) -> None:
    assert "HPS_v2.0" in refusal(HPSv20, checkpoints / "hpsv2")


def test_the_published_architecture_of_hpsv2() -> None:
    config = clip_config(VIT_H_14)
    assert (config.vision_config.num_attention_heads, config.vision_config.intermediate_size) == (16, 5120)
    assert (config.text_config.num_attention_heads, config.text_config.intermediate_size) == (16, 4096)
    assert config.vision_config.hidden_act == config.text_config.hidden_act == "gelu"


def test_image_tower_alone_serves_the_aesthetic_predictor(checkpoints: Path, tmp_path: Path) -> None:
    folder = tmp_path / "aesthetic"
    (folder / "clip").mkdir(parents=True)
    shutil.copy(checkpoints / "aesthetic" / "head.pth", folder)
    settings = json.loads((checkpoints / "clip" / "config.json").read_text())
    card = settings["vision_config"] | {"projection_dim": 768}
    (folder / "clip" / "config.json").write_text(json.dumps(card))
    tensors = load_file(checkpoints / "clip" / "model.safetensors")
    save_file(
        {name: value for name, value in tensors.items() if name.startswith("vis")},
        folder / "clip" / "model.safetensors",
    )
    whole, alone = (Aesthetic.load(str(path), device=CPU) for path in (checkpoints / "aesthetic", folder))
    image = Image.effect_noise((224, 224), 60)
    torch.testing.assert_close(whole.score([image], [""]), alone.score([image], [""]))

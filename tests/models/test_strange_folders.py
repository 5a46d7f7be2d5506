"""Folders of models from strangers: no code of theirs runs, and whatever is wrong with them is one sentence."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.core.errors import UserError
from bench.models.checkpoints.pipeline_folder import explained
from bench.models.checkpoints.stated import CODE
from bench.models.find import find_architecture, find_model

Folder = Callable[..., Path]


@pytest.fixture
def folder(pipeline_folder: Folder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pipeline_folder("sd15"), tmp_path / "model"))


def change(path: Path, **fields: Any) -> None:
    stated = json.loads(path.read_text())
    stated |= fields
    path.write_text(json.dumps({name: value for name, value in stated.items() if value is not ...}))


def use(folder: Path) -> None:
    """What a run does with a model before it trains: all parts are loaded, and a prompt is encoded."""
    found = find_model(str(folder))
    model = found.card.family.load(found.card.source, device=torch.device("cpu"))
    _ = model.parts, model.network, model.process, model.latent_shape(model.resolution, model.resolution)
    model.tokens(["a bee"])
    model.encode_text(["a bee"])
    model.encode_images(torch.zeros(1, 3, model.resolution, model.resolution))


def plan(folder: Path) -> None:
    """What a plan does: only configurations are read."""
    found = find_architecture(str(folder))
    with torch.device("meta"):
        model = found.build(torch.device("meta"))
        _ = model.network, model.process, model.latent_shape(model.resolution, model.resolution)


def refusal(folder: Path, read: Callable[[Path], None] = use) -> str:
    with pytest.raises(UserError) as refused:
        read(folder)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert str(folder) in sentence
    return sentence


def test_the_folder_is_well_without_a_change(folder: Path) -> None:
    use(folder)
    plan(folder)


@pytest.mark.parametrize("read", [use, plan])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "model_index.json is empty"),
        (b" \n", "model_index.json is empty"),
        (b"{}", "has no _class_name"),
        (b'{"_class_name": null}', "has no _class_name"),
        (b'{"_class_name": ["StableDiffusionPipeline"]}', "has no _class_name"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"\xff\xfe{\0}\0", "is not valid JSON"),
        (b"[1]", "is not a JSON object"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"a": ' + b"9" * 6000 + b"}", "is not valid JSON"),
        (b'{"_class_name": "StableDiffusionPipeline"', "is not valid JSON"),
    ],
)
def test_an_index_that_says_nothing(folder: Path, content: bytes, said: str, read: Callable[[Path], None]) -> None:
    (folder / "model_index.json").write_bytes(content)
    assert said in refusal(folder, read)


@pytest.mark.parametrize("read", [use, plan])
@pytest.mark.parametrize(
    ("component", "entry"),
    [
        ("unet", ["os", "system"]),
        ("unet", ["transformers", "Trainer"]),
        ("unet", ["diffusers", "StableDiffusionPipeline"]),
        ("unet", ["diffusers", "UNet3DConditionModel"]),
        ("vae", ["diffusers", "AutoencoderTiny"]),
        ("scheduler", ["diffusers", "UNet2DConditionModel"]),
        ("scheduler", ["model", "Mine"]),
        ("unet", [["diffusers"], "UNet2DConditionModel"]),
        ("unet", "UNet2DConditionModel"),
        ("unet", {"diffusers": 1}),
    ],
)
def test_classes_are_those_of_a_list(folder: Path, component: str, entry: object, read: Callable[[Path], None]) -> None:
    change(folder / "model_index.json", **{component: entry})
    refusal(folder, read)


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer"])
def test_no_module_of_the_folder_is_imported(folder: Path, part: str) -> None:
    (folder / part / "evil.py").write_text("raise SystemExit('imported')\n")
    name = "tokenizer_config.json" if part == "tokenizer" else "config.json"
    change(folder / part / name, auto_map={"AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]})
    assert "auto_map" in refusal(folder)
    assert "evil" not in sys.modules


@pytest.mark.parametrize("field", CODE)
def test_a_configuration_that_asks_for_code(folder: Path, field: str) -> None:
    change(folder / "text_encoder" / "config.json", **{field: "owner/kernels"})
    assert field in refusal(folder)


@pytest.mark.parametrize("read", [use, plan])
@pytest.mark.parametrize("size", [[64, 64], ..., None, "8", 0, -8, 8.5, True, 10**9])
def test_a_size_that_is_not_a_number(folder: Path, size: object, read: Callable[[Path], None]) -> None:
    change(folder / "unet" / "config.json", sample_size=size)
    assert "sample_size" in refusal(folder, read)


@pytest.mark.parametrize(
    ("length", "said"),
    [(10**30, "model_max_length is absent"), (0, "model_max_length"), (True, "is 1,"), (2, "is 2,"), (500, "500")],
)
def test_a_tokenizer_without_a_longest_length(folder: Path, length: int, said: str) -> None:
    change(folder / "tokenizer" / "tokenizer_config.json", model_max_length=length)
    assert said in refusal(folder)


def test_a_tokenizer_that_does_not_state_a_length(folder: Path) -> None:
    change(folder / "tokenizer" / "tokenizer_config.json", model_max_length=...)
    assert "model_max_length is absent" in refusal(folder)


@pytest.mark.parametrize(
    ("field", "value"), [("model_max_length", "x"), ("model_max_length", []), ("padding_side", 3), ("pad_token", None)]
)
def test_a_tokenizer_that_takes_no_text(folder: Path, field: str, value: object) -> None:
    change(folder / "tokenizer" / "tokenizer_config.json", **{field: value})
    assert f"{folder / 'tokenizer'} cannot be loaded" in refusal(folder)


def test_a_token_without_an_embedding(folder: Path) -> None:
    path = folder / "text_encoder" / "config.json"
    count = json.loads(path.read_text())["vocab_size"]
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    [name] = [each for each in tensors if each.endswith("token_embedding.weight")]
    save_file({**tensors, name: tensors[name][: count - 3].clone()}, weights, {"format": "pt"})
    change(path, vocab_size=count - 3, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    assert "3 tokens without an embedding" in refusal(folder)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("unet", "cross_attention_dim", 32),
        ("unet", "block_out_channels", [16]),
        ("unet", "norm_num_groups", 0),
        ("unet", "down_block_types", ["NoSuchBlock"]),
        ("text_encoder", "hidden_size", 24),
        ("text_encoder", "num_attention_heads", 0),
        ("vae", "latent_channels", 8),
        ("vae", "latent_channels", "four"),
        ("vae", "block_out_channels", 8),
    ],
)
def test_a_configuration_that_disagrees_with_its_weights(folder: Path, part: str, field: str, value: object) -> None:
    change(folder / part / "config.json", **{field: value})
    refusal(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_train_timesteps", 10**12), ("num_train_timesteps", "many"), ("beta_start", "x"), ("beta_end", None)],
)
def test_a_schedule_that_is_none(folder: Path, field: str, value: object) -> None:
    change(folder / "scheduler" / "scheduler_config.json", **{field: value})
    refusal(folder)


def test_a_schedule_without_end_is_not_a_lack_of_memory(folder: Path) -> None:
    change(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=10**12)
    assert "num_train_timesteps is 1000000000000" in refusal(folder)
    assert "memory" not in refusal(folder)


def test_a_lack_of_memory_is_not_a_damaged_model(folder: Path) -> None:
    with pytest.raises(UserError, match="memory of this machine") as refused, explained(folder / "unet"):
        torch.empty(1 << 50)
    assert str(folder / "unet") in str(refused.value)
    assert "damaged" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3}'])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer(folder: Path, name: str, content: str) -> None:
    if (name, content) == ("tokenizer_config.json", '{"model": 3}'):
        pytest.skip("a field that nothing reads")
    (folder / "tokenizer" / name).write_text(content)
    refusal(folder)


@pytest.mark.parametrize("kind", ["sd15", "sd3"])
def test_a_tokenizer_without_its_vocabulary(pipeline_folder: Folder, tmp_path: Path, kind: str) -> None:
    """Transformers would make one that knows its special tokens alone, and every prompt would be the same."""
    folder = Path(shutil.copytree(pipeline_folder(kind), tmp_path / kind))
    place = folder / {"sd15": "tokenizer", "sd3": "tokenizer_3"}[kind]
    for path in place.iterdir():
        if path.name != "tokenizer_config.json":
            path.unlink()
    assert f"the tokenizer in {place} is not complete: it needs tokenizer.json, or " in refusal(folder)


def test_weights_with_adapters_that_are_not_merged(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    named = {name.replace("to_q.", "to_q.base_layer."): value for name, value in tensors.items()}
    save_file(named, weights, {"format": "pt"})
    assert "adapters that are not merged" in refusal(folder)


@pytest.mark.parametrize("read", [use, plan])
@pytest.mark.parametrize("name", ["single.safetensors", "single.ckpt"])
def test_a_single_file(tmp_path: Path, name: str, read: Callable[[Path], None]) -> None:
    save_file({"model.diffusion_model.x": torch.zeros(1)}, tmp_path / name)
    assert "is a single file" in refusal(tmp_path / name, read)


def test_shards_that_lie_elsewhere(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(folder / "weights.safetensors")
    index = {"metadata": {}, "weight_map": {"conv_in.weight": "../weights.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert "leads out of the folder" in refusal(folder)


@pytest.mark.parametrize(
    "name",
    ["model_index.json", "unet/config.json", "tokenizer/tokenizer.json", "unet/diffusion_pytorch_model.safetensors"],
)
def test_a_named_pipe_among_its_files_is_not_opened(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refusal(folder)

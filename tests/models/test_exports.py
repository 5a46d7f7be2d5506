"""What training writes loads in plain diffusers, and does there what it does here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from pipelines import WRITERS
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench import TrainingSettings, UserError
from bench.models.checkpoints.adapters import ADAPTERS, export_adapters, join_adapters
from bench.models.checkpoints.compatibility import check_fits
from bench.models.checkpoints.original_names import original_names
from bench.models.family import ModelFamily
from bench.models.find import find_model
from bench.models.framing import Framing
from bench.training.ledger import Ledger
from bench.training.policy import Policy


def load(folder: Path) -> ModelFamily:
    return find_model(str(folder)).card.family.load(str(folder), device=torch.device("cpu"))


def trained(model: ModelFamily, weights: str, seed: int = 3) -> Any:
    """A network that differs from the base in everything that is trained."""
    policy = Policy(model, TrainingSettings.model_validate({"trainable": weights, "lora_rank": 3}), Ledger())
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=source), alpha=0.05)
    return policy.network


@torch.no_grad()
def predict(model: ModelFamily, network: nn.Module) -> Tensor:
    sizes = model.picture_condition(Framing.whole((16, 16)))
    told = model.encode_text(["a bee"]) | {name: value[None] for name, value in sizes.items()}
    latents = torch.randn(1, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(4))
    return model.predict(network, latents, torch.tensor([500.0]), told)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("weights", ["full", "lora"])
def test_an_export_predicts_here_and_in_diffusers_what_the_trained_network_did(
    pipeline_folder: Callable[..., Path], tmp_path: Path, kind: str, weights: str
) -> None:
    folder = pipeline_folder(kind)
    model = load(folder)
    network = trained(model, weights)
    expected = predict(model, network)
    model.save_trained(network, tmp_path / "weights")

    again = load(folder)
    assert (predict(again, again.network) - expected).abs().max() > 1e-3
    torch.testing.assert_close(predict(again, again.load_trained(tmp_path / "weights")), expected, rtol=0, atol=1e-6)

    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    name = "unet" if hasattr(pipeline, "unet") else "transformer"
    if weights == "lora":
        pipeline.load_lora_weights(tmp_path / "weights")
    else:
        assert str(folder.parent) not in (tmp_path / "weights/config.json").read_text()  # weights are uploaded
        setattr(pipeline, name, type(getattr(pipeline, name)).from_pretrained(tmp_path / "weights"))
    torch.testing.assert_close(predict(again, getattr(pipeline, name)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", ["full", "lora"])
def test_training_can_start_from_an_export_with_its_adapters_merged(
    pipeline_folder: Callable[..., Path], tmp_path: Path, weights: str
) -> None:
    model = load(pipeline_folder("sd15"))
    network = trained(model, weights)
    expected = predict(model, network)
    model.save_trained(network, tmp_path)
    again = load(pipeline_folder("sd15"))
    names = [name for name, _ in again.network.named_parameters()]
    again.start_from(tmp_path)
    assert [name for name, _ in again.network.named_parameters()] == names
    torch.testing.assert_close(predict(again, again.network), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["sd15", "sd3"])
def test_joined_adapters_do_what_each_did_on_top_of_the_one_before(
    pipeline_folder: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    folders = [tmp_path / name for name in ("first", "second", "third")]
    in_turn = load(pipeline_folder(kind))
    digests = []
    for number, folder in enumerate(folders):
        base = load(pipeline_folder(kind))
        base.save_trained(trained(base, "lora", seed=number), folder)
        in_turn.start_from(folder)
        digests.append(in_turn.digest)
    join_adapters(folders, tmp_path / "joined")

    again = load(pipeline_folder(kind))
    again.start_from(folders[-1])
    assert len({*digests, again.digest}) == 4  # what the last adapters were merged with is part of the digest
    expected = predict(in_turn, in_turn.network)
    assert (predict(again, again.network) - expected).abs().max() > 1e-3
    fresh = load(pipeline_folder(kind))
    torch.testing.assert_close(predict(fresh, fresh.load_trained(tmp_path / "joined")), expected, rtol=0, atol=1e-5)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(pipeline_folder(kind))
    pipeline.load_lora_weights(tmp_path / "joined")
    network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    torch.testing.assert_close(predict(fresh, network), expected, rtol=0, atol=1e-5)


def test_adapters_of_convolutions_are_joined_and_those_of_other_layers_are_not(tmp_path: Path) -> None:
    def written(name: str, rank: int, layer: str = "unet.conv", **more: Tensor) -> Path:
        source = torch.Generator().manual_seed(rank)
        factors = {
            f"{layer}.lora_A.weight": torch.randn(rank, 4, 3, 3, generator=source),
            f"{layer}.lora_B.weight": torch.randn(5, rank, 1, 1, generator=source),
        }
        (tmp_path / name).mkdir()
        save_file({**factors, **more}, tmp_path / name / ADAPTERS)
        return tmp_path / name

    def effect(folder: Path) -> Tensor:
        first, second = (load_file(folder / ADAPTERS)[f"unet.conv.lora_{each}.weight"] for each in "AB")
        return torch.einsum("or,rihw->oihw", second[:, :, 0, 0], first)

    one, two = written("one", 2), written("two", 3)
    join_adapters([one, two], tmp_path / "both")
    torch.testing.assert_close(effect(tmp_path / "both"), effect(one) + effect(two), rtol=1e-5, atol=1e-5)
    for place, other in enumerate(
        (written("layer", 2, "unet.other"), written("more", 2, **{"unet.conv.alpha": torch.ones(1)}))
    ):
        for folders in ([one, other], [other, one], [other, other]):
            if place == 0 and folders[0] is folders[1]:
                continue
            with pytest.raises(ValueError, match="cannot be joined: their layers differ"):
                join_adapters(folders, tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_the_layout_of_user_interfaces_does_in_diffusers_and_here_what_the_trained_network_did(
    pipeline_folder: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    model = load(pipeline_folder(kind))
    network = trained(model, "lora")
    expected = predict(model, network)
    model.save_trained(network, tmp_path / "weights")
    file = tmp_path / "mine.safetensors"
    export_adapters(tmp_path / "weights", file)

    names = list(load_file(file))
    assert all(name.startswith("lora_unet_") for name in names)
    assert {name.partition(".")[2] for name in names} == {"lora_down.weight", "lora_up.weight", "alpha"}

    pipeline = diffusers.DiffusionPipeline.from_pretrained(pipeline_folder(kind))
    pipeline.load_lora_weights(tmp_path, weight_name=file.name)
    again = load(pipeline_folder(kind))
    assert (predict(again, again.network) - expected).abs().max() > 1e-3
    torch.testing.assert_close(predict(again, pipeline.unet), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(predict(again, again.load_trained(file)), expected, rtol=0, atol=1e-6)


ORIGINAL_BLOCKS = {
    "down_blocks_1_attentions_0": "input_blocks_3_1",
    "mid_block_attentions_0": "middle_block_1",
    "up_blocks_0_attentions_0": "output_blocks_0_1",
    "up_blocks_0_attentions_1": "output_blocks_1_1",
}
"""Of pipelines with one layer in a block."""


def test_adapters_with_the_original_names_of_sdxls_blocks(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    model = load(pipeline_folder("sdxl"))
    network = trained(model, "lora")
    expected = predict(model, network)
    model.save_trained(network, tmp_path / "weights")
    export_adapters(tmp_path / "weights", tmp_path / "ours.safetensors")
    renamed = {}
    for name, value in load_file(tmp_path / "ours.safetensors").items():
        (block,) = [block for block in ORIGINAL_BLOCKS if block in name]
        # rank 3 with alpha 1.5: half as strong, undone by twice the second factor
        strength = {"alpha": 0.5, "lora_up.weight": 2.0}.get(name.partition(".")[2], 1.0)
        renamed[name.replace(block, ORIGINAL_BLOCKS[block])] = value * strength
    file = tmp_path / "theirs.safetensors"
    save_file(renamed, file)

    again = load(pipeline_folder("sdxl"))
    check_fits(file, again.network, "sdxl")
    torch.testing.assert_close(predict(again, again.load_trained(file)), expected, rtol=0, atol=1e-6)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(pipeline_folder("sdxl"))
    pipeline.load_lora_weights(tmp_path, weight_name=file.name)
    torch.testing.assert_close(predict(again, pipeline.unet), expected, rtol=0, atol=1e-6)

    both = {**renamed, **load_file(tmp_path / "ours.safetensors")}
    save_file(both, file)
    with pytest.raises(UserError, match="adapters of one layer under several names"):
        check_fits(file, again.network, "sdxl")


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("conv_in", "input_blocks.0.0"),
        ("down_blocks.0.resnets.1.time_emb_proj", "input_blocks.2.0.emb_layers.1"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks.4.0.skip_connection"),
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        (
            "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k",
            "input_blocks.8.1.transformer_blocks.9.attn2.to_k",
        ),
        ("mid_block.resnets.1.conv2", "middle_block.2.out_layers.3"),
        ("up_blocks.0.resnets.2.conv1", "output_blocks.2.0.in_layers.2"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        ("up_blocks.1.attentions.1.proj_out", "output_blocks.4.1.proj_out"),
        ("up_blocks.2.upsamplers.0.conv", "output_blocks.8.1.conv"),
        ("add_embedding.linear_2", "label_emb.0.2"),
    ],
)
def test_the_original_names_of_a_unet_with_two_layers_in_a_block(layer: str, name: str) -> None:
    layers = {layer, "up_blocks.0.attentions.0", "up_blocks.1.attentions.0", "down_blocks.1"}
    assert original_names(layers, 2) == {layer: name}


def test_what_that_layout_is_not_for(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    sdxl, flux = load(pipeline_folder("sdxl")), load(pipeline_folder("flux"))
    sdxl.save_trained(sdxl.network, tmp_path / "full")
    with pytest.raises(UserError, match="holds full weights, and this layout is for adapters"):
        export_adapters(tmp_path / "full", tmp_path / "mine.safetensors")
    flux.save_trained(trained(flux, "lora"), tmp_path / "transformer")
    with pytest.raises(UserError, match="adapters of a transformer, which user interfaces read in diffusers' layout"):
        export_adapters(tmp_path / "transformer", tmp_path / "mine.safetensors")
    assert not (tmp_path / "mine.safetensors").exists()


def test_adapters_of_another_network_are_refused(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    flux = load(pipeline_folder("flux"))
    flux.save_trained(trained(flux, "lora"), tmp_path)
    with pytest.raises(UserError, match="holds no adapters for a unet"):
        load(pipeline_folder("sdxl")).load_trained(tmp_path)


def test_a_large_network_in_several_shards_loads_and_has_a_digest_of_them_all(
    pipeline_folder: Callable[..., Path], tmp_path: Path
) -> None:
    whole = load(pipeline_folder("sdxl"))
    diffusers.DiffusionPipeline.from_pretrained(pipeline_folder("sdxl")).save_pretrained(
        tmp_path / "sharded", max_shard_size="100KB"
    )
    shards = list((tmp_path / "sharded" / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    sharded = load(tmp_path / "sharded")
    expected = whole.network.state_dict()
    assert {name: torch.equal(value, expected[name]) for name, value in sharded.network.state_dict().items()} == (
        dict.fromkeys(expected, True)
    )
    before = sharded.digest
    content = shards[-1].read_bytes()
    shards[-1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert load(tmp_path / "sharded").digest != before


@pytest.mark.parametrize("shards", ["one file", "several"])
def test_a_pipeline_of_half_precision_files_alone_loads_in_float32(
    pipeline_folder: Callable[..., Path], tmp_path: Path, shards: str
) -> None:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(pipeline_folder("sdxl"), dtype=torch.float16)
    sizes = {} if shards == "one file" else {"max_shard_size": "50KB"}
    pipeline.save_pretrained(tmp_path / "half", variant="fp16", **sizes)
    files = [path.name for path in (tmp_path / "half").glob("*/*.safetensors")]
    assert all(".fp16" in name for name in files)
    assert (len(files) > 4) == (shards == "several")
    whole, half = load(pipeline_folder("sdxl")), load(tmp_path / "half")
    for mine, theirs in (
        (whole.network, half.network),
        *zip(whole.encoders.values(), half.encoders.values(), strict=True),
    ):
        expected = {name: value.half().float() for name, value in mine.named_parameters()}
        found = dict(theirs.named_parameters())
        assert {name: torch.equal(value, found[name]) for name, value in expected.items()} == dict.fromkeys(found, True)
    released = load(pipeline_folder("sdxl")).load_trained(tmp_path / "half" / "unet")
    assert torch.equal(predict(whole, released), predict(whole, half.network))


def test_a_variant_beside_the_weights_is_not_loaded(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = shutil.copytree(pipeline_folder("sdxl"), tmp_path / "both")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(
        {name: torch.zeros_like(value) for name, value in load_file(file).items()},
        file.with_name("diffusion_pytorch_model.fp16.safetensors"),
        {"format": "pt"},
    )
    expected, found = load(pipeline_folder("sdxl")), load(folder)
    assert found.digest == expected.digest
    assert torch.equal(predict(found, found.network), predict(expected, expected.network))


def test_weights_in_the_order_of_cuda_are_saved_as_ever(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    model = load(pipeline_folder("sdxl"))
    expected = predict(model, model.network)
    model.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.save_trained(model.network, tmp_path)
    assert torch.equal(predict(model, model.load_trained(tmp_path)), expected)

"""Weights that others released: what is read, and what is refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from workshop import SD_SCHEDULE, SD_SCHEDULER, Workshop

from bench.core.errors import UserError
from bench.evaluation.weights import Weights, released_weights
from bench.models.families.stable_diffusion import StableDiffusion
from bench.training.policy import add_adapters
from bench.training.settings import TrainingSettings

ADAPTERS = "pytorch_lora_weights.safetensors"
HALF = torch.tensor(0.5)


@pytest.fixture(scope="module")
def model(workshop: Workshop) -> StableDiffusion:
    return workshop.model()


def released(folder: Path, model: StableDiffusion, name: str | None = None) -> Weights:
    return released_weights(folder.parent / "runs", "micro", str(folder), name, model)


def refusal(folder: Path, model: StableDiffusion) -> str:
    with pytest.raises(UserError) as caught:
        released(folder, model)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def write_adapters(workshop: Workshop, folder: Path, prefix: str) -> nn.Module:
    """Save adapters with their effect as a pipeline would, and give the network that has them."""
    model = workshop.model()
    tuned: Any = add_adapters(model.network, model.lora_targets, TrainingSettings(lora_rank=2))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=random))
    tuned.save_lora_adapter(folder / "plain", safe_serialization=True)
    state = load_file(folder / "plain" / ADAPTERS)
    save_file({f"{prefix}{name}": value for name, value in state.items()}, folder / ADAPTERS)
    network: nn.Module = tuned
    return network


def test_a_denoiser_alone_and_the_one_of_a_pipeline_are_the_same_weights(
    model: StableDiffusion, micro_model: Path
) -> None:
    alone, whole = released(micro_model / "unet", model), released(micro_model, model)
    assert alone.record.digest == whole.record.digest
    assert alone.record.title == whole.record.title == micro_model.name
    assert alone.run.folder.parts[-2:] == ("weights", micro_model.name)
    loaded = alone.network(model).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.network.state_dict().items())


def test_a_name_of_ones_own(model: StableDiffusion, micro_model: Path) -> None:
    assert released(micro_model, model, "theirs").record.title == "theirs"


@pytest.mark.parametrize("prefix", ["", "unet."])
def test_adapters_with_and_without_the_pipelines_prefix(
    workshop: Workshop, model: StableDiffusion, tmp_path: Path, prefix: str
) -> None:
    folder = tmp_path / "lora"
    tuned = write_adapters(workshop, folder, prefix)
    loaded = released(folder, model).network(model)
    latents, times = torch.ones(1, 4, 4, 4), torch.tensor([500])
    condition = model.encode_text(["a bee"])
    with torch.no_grad():
        expected, base = (model.predict(network, latents, times, condition) for network in (tuned, model.network))
        torch.testing.assert_close(model.predict(loaded, latents, times, condition), expected)
    assert (expected - base).abs().max() > 0.01


def pipeline_beside(model: StableDiffusion, folder: Path, scheduler: Any) -> Path:
    """The denoiser in a pipeline that samples with another scheduler."""
    saved(model, folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    return folder


@pytest.mark.parametrize("typed", ["pipeline", "denoiser"])
@pytest.mark.parametrize(
    ("change", "stated"),
    [
        ({"prediction_type": "v_prediction"}, "the prediction type v_prediction, not epsilon"),
        ({"num_train_timesteps": 100}, "100 training timesteps, not 1000"),
        ({"beta_end": 0.013}, "another noise schedule"),
        ({"beta_schedule": "linear"}, "another noise schedule"),
        ({"prediction_type": "sample"}, "the scheduler's prediction_type 'sample' is not supported"),
    ],
)
def test_a_pipeline_for_another_forward_process_is_refused(
    model: StableDiffusion, tmp_path: Path, change: dict[str, Any], stated: str, typed: str
) -> None:
    from diffusers import DDIMScheduler

    folder = pipeline_beside(model, tmp_path / "theirs", DDIMScheduler(**{**SD_SCHEDULER, **change}))
    assert stated in refusal(folder if typed == "pipeline" else folder / "unet", model)


def test_a_pipeline_that_only_samples_in_another_way_is_taken(model: StableDiffusion, tmp_path: Path) -> None:
    from diffusers import EulerDiscreteScheduler, PNDMScheduler

    spaced = {**SD_SCHEDULE, "timestep_spacing": "trailing", "steps_offset": 0}
    for number, scheduler in enumerate((EulerDiscreteScheduler(**spaced), PNDMScheduler(**spaced))):
        assert released(pipeline_beside(model, tmp_path / str(number), scheduler), model)


def test_other_weights_have_another_digest(model: StableDiffusion, micro_model: Path, tmp_path: Path) -> None:
    changed = workshop_copy(model, tmp_path / "changed")
    assert released(changed, model).record.digest != released(micro_model, model).record.digest


def test_a_file_that_is_not_loaded_is_no_part_of_the_digest(model: StableDiffusion, tmp_path: Path) -> None:
    folder = saved(model, tmp_path / "unet")
    before = released(folder, model).record.digest
    half = {name: value.half() for name, value in model.network.state_dict().items()}
    save_file(half, folder / "diffusion_pytorch_model.fp16.safetensors")
    assert released(folder, model).record.digest == before


def workshop_copy(model: StableDiffusion, folder: Path) -> Path:
    """A saved denoiser of which one weight differs."""
    network: Any = model.load_trained(saved(model, folder / "same"))
    with torch.no_grad():
        network.conv_in.bias += 1
    network.save_pretrained(folder)
    return folder


def saved(model: StableDiffusion, folder: Path) -> Path:
    model.save_trained(model.network, folder)
    return folder


def test_another_architecture_is_refused_by_its_first_weight(model: StableDiffusion, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    other = UNet2DConditionModel(
        sample_size=4, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=24, attention_head_dim=(2, 2), norm_num_groups=4,
    )  # fmt: skip
    other.save_pretrained(tmp_path / "other")
    sentence = refusal(tmp_path / "other", model)
    assert (
        "another architecture than 'micro': down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
        in sentence
    )
    assert "is 32x24 there and 32x16 in the model" in sentence


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("text_encoder.text_model.layers.0.q_proj.lora_A.weight", (2, 16)),  # it trained more than the denoiser
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", (2, 16)),  # the same in kohya's layout
        ("lora_unet_mid_block_attn1_to_q.lora_down.weight", (2, 32)),  # another program's layout
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", (2, 640)),  # another size
    ],
)
def test_adapters_that_do_not_fit_are_refused(
    model: StableDiffusion, tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    save_file({name: torch.zeros(shape)}, tmp_path / ADAPTERS)
    assert f"{name} {shape[0]}x{shape[1]} is not an adapter of the denoiser of 'micro'" in refusal(tmp_path, model)


@pytest.mark.parametrize(
    ("factors", "stated"),
    [
        ({"lora_A": (3, 32), "lora_B": (32, 2)}, "has lora_A of rank 3 and lora_B of rank 2"),
        ({"lora_A": (3, 32)}, "has lora_A of rank 3, but needs two factors of one rank"),
        ({"lora_B": (32,)}, "lora_B.weight 32 is not an adapter"),
        ({"lora_A": (0, 32), "lora_B": (32, 0)}, "has lora_A of rank 0 and lora_B of rank 0, but needs"),
    ],
)
def test_factors_that_do_not_fit_each_other_are_refused(
    model: StableDiffusion, tmp_path: Path, factors: dict[str, tuple[int, ...]], stated: str
) -> None:
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{layer}.{factor}.weight": torch.zeros(shape) for factor, shape in factors.items()}
    save_file(tensors, tmp_path / ADAPTERS)
    assert stated in refusal(tmp_path, model)


@pytest.mark.parametrize(
    ("layer", "factors", "named"),
    [
        ("conv_in", {"lora_A": (2, 4, 1, 1), "lora_B": (16, 2, 1, 1)}, "conv_in.lora_A.weight 2x4x1x1"),
        ("conv_in", {"lora_A": (2, 4, 3, 3), "lora_B": (16, 2, 3, 3)}, "conv_in.lora_B.weight 16x2x3x3"),
        ("conv_norm_out", {"lora_A": (16,), "lora_B": (16,)}, "conv_norm_out.lora_A.weight 16"),
        ("conv_norm_out", {"lora_B": (16,)}, "conv_norm_out.lora_B.weight 16"),
    ],
)
def test_factors_of_other_layers_or_kernels_are_refused(
    model: StableDiffusion, tmp_path: Path, layer: str, factors: dict[str, tuple[int, ...]], named: str
) -> None:
    tensors = {f"unet.{layer}.{factor}.weight": torch.zeros(shape) for factor, shape in factors.items()}
    save_file(tensors, tmp_path / ADAPTERS)
    assert f"{named} is not an adapter of the denoiser" in refusal(tmp_path, model)


def test_factors_of_a_convolution(model: StableDiffusion, tmp_path: Path) -> None:
    first, second = torch.ones(2, 4, 3, 3), torch.ones(16, 2, 1, 1)
    save_file({"unet.conv_in.lora_A.weight": first, "unet.conv_in.lora_B.weight": second}, tmp_path / ADAPTERS)
    assert not torch.equal(predict(model, released(tmp_path, model).network(model)), predict(model, model.network))


@pytest.mark.parametrize(("kind", "bits"), [("F4", 4), ("F6_E2M3", 6), ("I8", 8), ("BOOL", 8), ("C64", 64)])
def test_weights_that_are_not_floating_point_numbers_are_refused(
    model: StableDiffusion, tmp_path: Path, kind: str, bits: int
) -> None:
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    size = 4 * 32 * bits // 8
    header = {
        f"{layer}.lora_{factor}.weight": {"dtype": kind, "shape": shape, "data_offsets": [start, start + size]}
        for factor, shape, start in (("A", [4, 32], 0), ("B", [32, 4], size))
    }
    content = json.dumps(header).encode()
    file = tmp_path / "odd.safetensors"
    file.write_bytes(len(content).to_bytes(8, "little") + content + bytes(2 * size))
    assert f"lora_A.weight is of the type {kind}, and F64, F32, F16, BF16, F8_E4M3, F8_E5M2 are read" in refusal(
        file, model
    )


def test_integers_as_alphas_are_read(workshop: Workshop, model: StableDiffusion, tmp_path: Path) -> None:
    write_adapters(workshop, tmp_path / "lora", "unet.")
    plain = load_file(tmp_path / "lora" / ADAPTERS)
    alphas = {f"{name.rpartition('.lora_')[0]}.alpha": torch.tensor(2) for name in plain}  # of rank 2
    save_file({**plain, **alphas}, tmp_path / "stated.safetensors")
    one, other = (released(place, model) for place in (tmp_path / "lora", tmp_path / "stated.safetensors"))
    assert torch.equal(*(predict(model, each.network(model)) for each in (one, other)))


def test_adapters_in_two_files_are_refused(model: StableDiffusion, tmp_path: Path) -> None:
    names = [f"unet.conv_in.lora_{factor}.weight" for factor in "AB"]
    for name, shape in zip(names, [(2, 4, 3, 3), (16, 2, 1, 1)], strict=True):
        save_file({name: torch.zeros(shape)}, tmp_path / f"model-{name[-8]}.safetensors")
    places = {name: f"model-{name[-8]}.safetensors" for name in names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (tmp_path / "config.json").write_text("{}")
    assert "holds adapters in 2 files, and one is read" in refusal(tmp_path, model)


def test_pickled_weights_and_none_at_all(model: StableDiffusion, tmp_path: Path) -> None:
    assert "holds no safetensors weights; give a safetensors file" in refusal(tmp_path, model)
    assert "do not exist; give a safetensors file" in refusal(tmp_path / "nowhere", model)
    (tmp_path / "unet").mkdir()
    pickled = tmp_path / "unet" / "diffusion_pytorch_model.bin"
    pickled.write_bytes(b"")
    assert "only pickled ones (diffusion_pytorch_model.bin), which can run code" in refusal(tmp_path, model)
    assert "is not a safetensors file, and other formats can run code when they are loaded" in refusal(pickled, model)


def test_one_file_of_adapters_whatever_its_name(workshop: Workshop, model: StableDiffusion, tmp_path: Path) -> None:
    write_adapters(workshop, tmp_path / "lora", "unet.")
    file = (tmp_path / "lora" / ADAPTERS).rename(tmp_path / "lora" / "style v2.safetensors")
    one, other = released(file, model), released(file.parent, model)
    assert one.record.title == "style v2"
    assert one.record.digest == other.record.digest
    assert torch.equal(*(predict(model, each.network(model)) for each in (one, other)))
    second = tmp_path / "lora" / "second.safetensors"
    second.write_bytes(file.read_bytes())
    sentence = refusal(file.parent, model)
    assert f"holds 2 safetensors files; give one of them by its path: {second} or {file}" in sentence


@pytest.mark.parametrize("typed", ["file", "folder"])
def test_one_file_of_all_weights(model: StableDiffusion, tmp_path: Path, typed: str) -> None:
    changed = workshop_copy(model, tmp_path / "changed")
    (tmp_path / "theirs").mkdir()
    file = (changed / "diffusion_pytorch_model.safetensors").rename(tmp_path / "theirs" / "best.safetensors")
    loaded = released(file if typed == "file" else file.parent, model).network(model).state_dict()
    for name, value in model.network.state_dict().items():
        assert torch.equal(loaded[name], value + 1 if name == "conv_in.bias" else value)


def shared_name(name: str) -> str:
    """A name in the layout of user interfaces."""
    layer, _, rest = name.removeprefix("unet.").rpartition(".lora_")
    factor = {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}[rest]
    return f"lora_unet_{layer.replace('.', '_')}.{factor}"


@pytest.mark.parametrize("layout", ["user interfaces", "diffusers", "no prefix", "header"])
def test_an_alpha_acts_in_every_layout(workshop: Workshop, model: StableDiffusion, tmp_path: Path, layout: str) -> None:
    write_adapters(workshop, tmp_path / "lora", "unet.")
    plain = load_file(tmp_path / "lora" / ADAPTERS)
    weaker = {name: value / 4 if "lora_B" in name else value for name, value in plain.items()}
    save_file(weaker, tmp_path / "weaker.safetensors")
    layers = {name.rpartition(".lora_")[0] for name in plain}
    header = {"format": "pt"}
    match layout:  # rank 2 with alpha 0.5: a quarter
        case "user interfaces":
            stated = {shared_name(name): value for name, value in plain.items()}
            stated |= {f"lora_unet_{layer.removeprefix('unet.').replace('.', '_')}.alpha": HALF for layer in layers}
        case "diffusers":
            stated = {**plain, **{f"{layer}.alpha": HALF for layer in layers}}
        case "no prefix":
            stated = {**plain, **{f"{layer}.alpha": HALF for layer in layers}}
            stated = {name.removeprefix("unet."): value for name, value in stated.items()}
        case _:
            stated = plain
            config = {"unet.r": 2, "unet.lora_alpha": 0.5, "unet.target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
            header["lora_adapter_metadata"] = json.dumps(config)
    save_file({name: value.clone() for name, value in stated.items()}, tmp_path / "stated.safetensors", header)
    one, other = (
        predict(model, released(tmp_path / f"{name}.safetensors", model).network(model))
        for name in ("weaker", "stated")
    )
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert (one - predict(model, model.network)).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["adapters", "file", "folder"])
def test_a_weight_that_is_not_finite(workshop: Workshop, model: StableDiffusion, tmp_path: Path, kind: str) -> None:
    if kind == "adapters":
        write_adapters(workshop, tmp_path / "theirs", "unet.")
        file = tmp_path / "theirs" / ADAPTERS
    else:
        file = saved(model, tmp_path / "theirs") / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    max(tensors.values(), key=torch.Tensor.numel).view(-1)[3] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    assert "is not finite; the file is damaged" in load_refusal(file.parent if kind == "folder" else file, model)


def test_a_download_that_lacks_a_shard(model: StableDiffusion, tmp_path: Path) -> None:
    network: Any = model.network
    network.save_pretrained(tmp_path / "unet", max_shard_size="50KB")
    shard = sorted((tmp_path / "unet").glob("*.safetensors"))[1]
    shard.unlink()
    assert f"{shard.name} is missing; the download is incomplete" in refusal(tmp_path, model)


def test_a_checkpoint_in_the_original_layout(model: StableDiffusion, tmp_path: Path) -> None:
    save_file({"model.diffusion_model.out.2.bias": torch.zeros(4)}, tmp_path / "v1-5.safetensors")
    assert "is a checkpoint in the original layout; turn it into a folder" in refusal(
        tmp_path / "v1-5.safetensors", model
    )


@torch.no_grad()
def predict(model: StableDiffusion, network: nn.Module) -> torch.Tensor:
    return model.predict(network, torch.ones(1, 4, 4, 4), torch.tensor([500]), model.encode_text(["a bee"]))


def load_refusal(place: Path, model: StableDiffusion) -> str:
    """What is said when the weights fit by their names and shapes, and are loaded."""
    weights = released(place, model)
    with pytest.raises(UserError) as caught:
        weights.network(model)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_file_that_was_cut_short(model: StableDiffusion, tmp_path: Path) -> None:
    (tmp_path / ADAPTERS).write_bytes(b"\x00" * 4)
    assert "cannot be read" in refusal(tmp_path, model)

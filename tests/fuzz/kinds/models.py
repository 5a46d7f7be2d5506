"""Model folders and weights from strangers."""

from __future__ import annotations

import json
import shutil
from typing import Any

from safetensors.torch import load_file, save_file

from tests.fuzz.place import Expect, Place, kind, picture


def model(
    place: Place, name: str = "model", *, light: bool = False, light_says: bool = True, outcomes: tuple[int, ...] = (2,)
) -> Expect:
    words = [
        ["plan", "--algo", "dpo", "--model", name],
        ["list", "models", name],
        ["profile", "--algo", "dpo", "--model", name, "--set", "steps=1"],
    ]  # fmt: skip
    if not light:
        place.write("p.txt", "a red bee\na cat\n")
        words = [["eval", "--model", name, "--prompts", "p.txt", "--metrics", "aesthetic", "--sampling-steps", "1"],
                 ["run", "--algo", "dpo", "--model", name, "--data", "pairs.parquet", "--prompts", "p.txt", "--set", "steps=1"]]  # fmt: skip
        place.parquet()
    typed = place.rng.choice(words)
    if typed[0] in ("plan", "profile") and not light_says:
        outcomes = (0, 2)  # they read configurations alone
    return Expect(typed, (0, 2) if typed[0] == "list" else outcomes)  # which reads the index alone


def changed(place: Place, file: str, **fields: Any) -> None:
    path = place.folder / "model" / file
    value = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: each for key, each in value.items() if each is not ...}))


@kind(7, 4)
def model_indexes(place: Place) -> Expect:
    index = place.model() / "model_index.json"
    content = place.rng.choice([b"", b"{", b"{}", b"[]", b"null", b'{"_class_name": 3}', b'{"_class_name": "EvilPipeline"}', b"\xff\xfe{}",
                                b'{"_class_name": "StableDiffusionPipeline", "unet": 3}', b"[" * 100_000, b'{"a":' + b"9" * 6000 + b"}"])  # fmt: skip
    index.write_bytes(content)
    return model(place, light=place.rng.random() < 0.7)


@kind(7, 2)
def a_model_index_with_a_byte_order_mark(place: Place) -> Expect:
    index = place.model() / "model_index.json"
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    return model(place, light=True, outcomes=(0, 2))


@kind(7, 5)
def component_configurations(place: Place) -> Expect:
    place.model()
    part = place.rng.choice(
        ["unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"]
    )
    content = place.rng.choice([b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000])
    (place.folder / "model" / part).write_bytes(content)
    return model(place, light=place.rng.random() < 0.3)


@kind(7, 4)
def odd_fields(place: Place) -> Expect:
    place.model()
    file, fields = place.rng.choice([
        ("unet/config.json", {"sample_size": [8, 8]}), ("unet/config.json", {"sample_size": "big"}), ("unet/config.json", {"in_channels": 5}),
        ("unet/config.json", {"cross_attention_dim": 7}), ("unet/config.json", {"block_out_channels": [8]}), ("vae/config.json", {"latent_channels": 3}),
        ("text_encoder/config.json", {"hidden_size": 3}), ("scheduler/scheduler_config.json", {"num_train_timesteps": -1}),
        ("model_index.json", {"unet": ["os", "system"]}), ("model_index.json", {"scheduler": ["diffusers", "UNet2DConditionModel"]}),
        ("unet/config.json", {"auto_map": {"AutoModel": "evil.Evil"}}),
    ])  # fmt: skip
    changed(place, file, **fields)
    return model(place, outcomes=(0, 2) if "auto_map" in fields or fields.get("sample_size") == [8, 8] else (2,))


@kind(7, 3)
def lost_parts(place: Place) -> Expect:
    place.model()
    part = place.rng.choice(["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
    shutil.rmtree(place.folder / "model" / part)
    return model(place)


@kind(7, 4)
def damaged_weights(place: Place) -> Expect:
    folder = place.model()
    path = place.rng.choice(sorted(folder.rglob("*.safetensors")))
    content = path.read_bytes()
    path.write_bytes(
        place.rng.choice(
            [
                b"",
                content[: len(content) // 2],
                b"\xff" * 8 + content[8:],
                b"\0" * 8,
                content[:8] + b"[" * 100 + content[108:],
            ]
        )
    )
    return model(place)


@kind(7, 3)
def not_a_model(place: Place) -> Expect:
    name = place.rng.choice(["nowhere", "a.safetensors", "./a.safetensors", "empty", ".", "x" * 5000, "a/b", "", "~"])
    place.write("a.safetensors", b"\0" * 64)
    (place.folder / "empty").mkdir()
    return model(place, name, light=place.rng.random() < 0.6)


@kind(7, 3)
def released_weights(place: Place) -> Expect:
    name = place.rng.choice(["w.safetensors", "w.bin", "w.ckpt", "w"])
    content = place.rng.choice([b"", b"\x80\x04", b"PK\x03\x04", b"\0" * 100, b"\xff" * 100])
    place.write(name if name != "w" else "w/adapter_config.json", content)
    option = place.rng.choice(["--weights", "--negative", "--init"])
    if option == "--init":
        place.parquet()
        return Expect(
            ["run", "--algo", "dpo", "--model", "tiny", "--data", "pairs.parquet", "--init", name, "--set", "steps=1"],
            (2,),
        )
    return Expect(["eval", "--model", "tiny", option, name, "--sampling-steps", "1"], (2,))


@kind(7, 3)
def sampling_settings(place: Place) -> Expect:
    typed = place.rng.choice([
        ["--image", "scheduler=Evil"], ["--image", "scheduler=UNet2DConditionModel"], ["--sampling-steps", "1000"], ["--sampling-steps", "1001"],
        ["--image", "scheduler=os.system"], ["--guidance-scale", "1e30"], ["--guidance-scale", "nan"], ["--image", "height=1"],
        ["--image", "seed=" + "9" * 5000], ["--image", "images_per_prompt=0"], ["--image", "scheduler=CosineDPMSolverMultistepScheduler"],
    ])  # fmt: skip
    place.write("p.txt", "a red bee\na cat\n")
    return Expect(["eval", "--model", "tiny", "--prompts", "p.txt", "--metrics", "aesthetic", *typed], (2,))


@kind(4, 5)
def names_that_leave_the_folder(place: Place) -> Expect:
    name = place.rng.choice(
        ["../../x", "/tmp/fuzz-x", "..", "a/b", "", ".", "x" * 255, "x" * 300, "a\nb", "\x1b[31mred", ".cache", "-x"]
    )
    place.write("p.txt", "a red bee\na cat\n")
    shutil.copytree(place.assets / "model" / "unet", place.folder / "w")
    words = place.rng.choice([
        ["eval", "--model", "tiny", "--weights", "w", "--prompts", "p.txt", "--metrics", "aesthetic", "--sampling-steps", "1", f"--name={name}"],
        ["run", "--algo", "dpo", "--model", "tiny", "--set", "steps=1", f"--name={name}", "--prompts", "p.txt", "--sampling-steps", "1"],
    ])  # fmt: skip
    return Expect(words, (0, 2) if words[0] == "eval" and name in ("x" * 255, "-x") else (2,))


@kind(5, 2)
def numbers_without_end(place: Place) -> Expect:
    typed = place.rng.choice(
        [
            "steps=1e26",
            "global_batch_size=1e26",
            "global_batch_size=" + "9" * 30,
            "learning_rate=1e999",
            "learning_rate=nan",
            "steps=" + "9" * 5000,
        ]
    )
    return Expect(
        [place.rng.choice(["plan", "run", "profile"]), "--algo", "dpo", "--model", "tiny", "--set", typed], (2,)
    )


@kind(7, 4)
def tokenizers(place: Place) -> Expect:
    place.model()
    stated: dict[str, Any] = place.rng.choice(
        [
            {"model_max_length": ...},
            {"model_max_length": 10**30},
            {"model_max_length": 0},
            {"model_max_length": "x"},
            {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}},
        ]
    )
    changed(place, "tokenizer/tokenizer_config.json", **stated)
    place.write("model/tokenizer/evil.py", "raise SystemExit('imported')")
    return model(place, light_says=False)


@kind(7, 4)
def tensors_that_do_not_fit(place: Place) -> Expect:
    folder = place.model()
    if place.rng.random() < 0.5:
        path = folder / "unet" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(path)
        how = place.rng.choice(["adapters", "missing", "nan", "shape", "more"])
        name = sorted(tensors)[place.rng.randrange(len(tensors))]
        if how == "adapters":
            tensors = {each.replace("to_q.", "to_q.base_layer."): value for each, value in tensors.items()}
        if how == "missing":
            del tensors[name]
        if how == "nan":
            tensors[name] = tensors[name] * float("nan")
        if how == "shape":
            tensors[name] = tensors[name].flatten()[1:].clone()
        if how == "more":
            tensors = {f"model.{each}": value for each, value in tensors.items()}
        save_file(tensors, path, {"format": "pt"})
        return model(place, light_says=False)
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    (name,) = [each for each in tensors if each.endswith("token_embedding.weight")]
    count = len(tensors[name])
    save_file({**tensors, name: tensors[name][: count - 3].clone()}, path, {"format": "pt"})
    changed(place, "text_encoder/config.json", vocab_size=count - 3)
    return model(place, light_says=False)


@kind(7, 3)
def checkpoints_of_metrics(place: Place) -> Expect:
    name = place.rng.choice(["w.safetensors", "w.bin", "w", "w.pt", "nowhere", "", "/dev/null", "x" * 5000])
    if name.startswith("w"):
        content = place.rng.choice([b"", b"\x80\x04", b"PK\x03\x04", b"\0" * 100, b"\xff" * 100])
        place.write(name if name != "w" else "w/model.safetensors", content)
    place.write("images/a.png", picture(1))
    return Expect(["score", "images", "--metrics", "aesthetic", "--checkpoint", f"aesthetic={name}"], (2,))

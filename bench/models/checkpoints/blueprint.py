"""A pipeline without weights: its networks are built from their configurations, with random values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.models.checkpoints.pipeline_folder import PipelineFolder, explained, quiet


class Blueprint(PipelineFolder):
    """A pipeline of which only configurations are read; nothing else is downloaded from the hub."""

    files: ClassVar[Sequence[str]] = ("config.json", "scheduler_config.json")

    def load_model(self, component: str, device: torch.device) -> Any:
        """A network of the pipeline with random weights, frozen and in float32.

        Raises:
            UserError: the component or its configuration is missing.
        """
        quiet()
        kind, config = self.component_class(component), self.config(component)
        with explained(self._folder(component)), device:
            if hasattr(kind, "from_config"):
                network = kind.from_config(config)
            else:  # transformers makes this method public only on its Auto classes
                network = kind._from_config(kind.config_class.from_dict(config))  # noqa: SLF001
        if any(each.device.type != device.type for each in (*network.parameters(), *network.buffers())):
            network = network.to(device)  # buffers created from numpy arrays ignore the device context above
        return network.eval().requires_grad_(False)

    def load_part(self, component: str) -> Any:
        """The scheduler, or a placeholder tokenizer.

        Raises:
            UserError: the scheduler is missing or incomplete.
        """
        if not component.startswith("tokenizer"):
            return super().load_part(component)
        encoder = self.config(component.replace("tokenizer", "text_encoder"))
        return BlankTokenizer(encoder.get("max_position_embeddings"))


class BlankTokenizer:
    """Turns every prompt into the same tokens, as many as requested.

    Attributes:
        model_max_length: the largest number of tokens that its encoder takes; None if there is no limit.
    """

    def __init__(self, model_max_length: int | None) -> None:
        self.model_max_length = model_max_length

    def __call__(self, prompts: Sequence[str], *, max_length: int, **_: Any) -> dict[str, Tensor]:
        return {"input_ids": torch.zeros(len(prompts), max_length, dtype=torch.int64)}

"""The head that ImageReward and the aesthetic predictor share."""

from __future__ import annotations

from typing import Any

from torch import nn


class LinearHead(nn.Module):
    """Five linear layers without activations, (N, width) to (N, 1): in effect a single affine map.

    The identities stand in for the dropouts of the training code, so parameters keep the published names,
    ``layers.{0,2,4,6,7}``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024), nn.Identity(), nn.Linear(1024, 128), nn.Identity(),
            nn.Linear(128, 64), nn.Identity(), nn.Linear(64, 16), nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, features: Any) -> Any:
        """Scores of features, (N, width) to (N, 1)."""
        return self.layers(features)

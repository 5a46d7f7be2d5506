"""What a machine without a GPU is asked to measure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pipelines import write_sdxl

from algorithms.dpo import DPO
from bench.core.errors import UserError
from bench.models.find import find_architecture
from bench.planning.host import host_memory, refuse_too_large
from bench.planning.plan import encoding_cost, make_plan
from bench.training.settings import TrainingSettings


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' Euler with numpy 2
def test_a_step_that_does_not_fit_is_refused_with_its_size_and_what_to_do(tmp_path: Path) -> None:
    write_sdxl(tmp_path)
    found = find_architecture(str(tmp_path))
    settings = TrainingSettings(global_batch_size=4, micro_batch_size=2)
    plan = make_plan(found, encoding_cost(found), DPO(), settings, device=torch.device("cpu"))
    needed = max(plan.training.memory.peak, plan.encoding.memory)
    refuse_too_large("dpo", "net", plan, needed)
    with pytest.raises(
        UserError, match=r"^dpo on net needs \S+ GiB .* no GPU .* bench plan --algo dpo --model net says"
    ):
        refuse_too_large("dpo", "net", plan, needed - 1)


def test_main_memory_is_what_the_kernel_says() -> None:
    (total,) = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")]
    assert host_memory() == pytest.approx(1024 * int(total.split()[1]), rel=0.01)

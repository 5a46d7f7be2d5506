"""What a run will cost, before it runs: a training step on tensors without values yields bytes, operations and seconds."""

"""What a run will cost, before it runs: the training step on tensors without values gives bytes, operations and seconds."""

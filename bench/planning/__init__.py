"""What a run will cost before it is started, and what its steps cost when they are run on random weights."""

"""How weights, gradients and optimizer states are laid out over the processes that ``accelerate launch`` started."""

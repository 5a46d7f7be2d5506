"""How weights, gradients and optimizer states lie over the processes that ``accelerate launch`` started."""

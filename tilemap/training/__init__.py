"""Training: labels, blocks, samples, losses and the loop that turns them into a model folder."""

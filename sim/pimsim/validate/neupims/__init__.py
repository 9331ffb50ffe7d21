"""The NeuPIMs result explained: the paper's grid, with the artifact's quirks and without."""

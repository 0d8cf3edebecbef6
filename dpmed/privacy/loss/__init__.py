"""Privacy-loss distributions: one step's loss, its sum over steps, and the grids that it is computed on."""

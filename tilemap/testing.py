"""What tests share: hypothesis strategies, scenes without symmetry, toy models. Tests only."""

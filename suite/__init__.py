"""The science: studies, plans, cells, training, pruning, curvature, limits and the store. Knows no cluster."""

"""Sparsity limits: predictors from a Hessian spectrum, and limits measured on the network itself."""

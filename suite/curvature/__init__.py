"""Hessian spectra: operators, Lanczos, stochastic quadrature, and the dense oracle."""

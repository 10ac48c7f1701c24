"""All operators by one door: the Hessian and the Gauss-Newton matrix of a network's loss, and explicit matrices."""

from suite.curvature.gauss_newton import GaussNewtonOperator
from suite.curvature.hessian import HessianOperator
from suite.curvature.symmetric import (
    CountedOperator,
    DiagonalOperator,
    MatrixOperator,
    SymmetricOperator,
    flatten_weights,
    unflatten_weights,
)

__all__ = [
    "CountedOperator",
    "DiagonalOperator",
    "GaussNewtonOperator",
    "HessianOperator",
    "MatrixOperator",
    "SymmetricOperator",
    "flatten_weights",
    "unflatten_weights",
]

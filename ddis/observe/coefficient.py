"""Values of the coefficient itself at points, such as what a borehole says of a permeability."""

from ddis.observe.base import Which
from ddis.observe.points import Points, PointsSettings


class CoefficientSettings(PointsSettings):
    """at, count: as for points; noise in units of the coefficient's standard deviation."""


class Coefficient(Points):
    """points: [m, d], in the domain's units; values are of the coefficient a, not of the free field."""

    Settings = CoefficientSettings
    of: Which = "coefficient"

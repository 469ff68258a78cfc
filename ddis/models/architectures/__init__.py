"""Architectures of neural operators, by name. To add one: write its file beside this one, and add its line here."""

from typing import Any

from ddis.models.architectures.base import Architecture
from ddis.refusals import chosen
from ddis.registry import Registry

__all__ = ["ARCHITECTURES", "Architecture", "architecture_of"]

ARCHITECTURES = Registry(
    "architecture",
    "ddis.architectures",
    {
        "fno": "ddis.models.architectures.fno:FNO",
        "unet": "ddis.models.architectures.unet:UNetOperator",
        "uno": "ddis.models.architectures.uno:UNO",
    },
)


def architecture_of(given: Any) -> Architecture:
    """An architecture with its settings, from `{architecture: fno, modes: 16, ...}`. Raises SettingError."""
    return chosen(ARCHITECTURES, Architecture, given, "architecture", "fno")

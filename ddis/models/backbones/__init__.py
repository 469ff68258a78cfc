"""Backbones of priors, by name. To add one: write its file beside this one, and add its line here."""

from typing import Any

from ddis.models.backbones.base import Backbone
from ddis.refusals import chosen
from ddis.registry import Registry

__all__ = ["BACKBONES", "Backbone", "backbone_of"]

BACKBONES = Registry(
    "name",
    "ddis.backbones",
    {"unet": "ddis.models.backbones.unet:UNet", "uno": "ddis.models.backbones.uno:UNOBackbone"},
)


def backbone_of(given: Any) -> Backbone:
    """A backbone with its settings, from `{name: unet, channels: [16, 32], ...}`. Raises SettingError."""
    return chosen(BACKBONES, Backbone, given, "name", "unet")

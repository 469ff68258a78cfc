"""DDIS: decoupled diffusion inverse solver, from datasets to the exact posterior."""

__version__ = "0.1.0"

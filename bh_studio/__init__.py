"""BH Studio: top-8 and Benjamini-Hochberg expert routing of OLMoE, side by side."""

__version__ = "0.1.0"

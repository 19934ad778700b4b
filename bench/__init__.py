"""Figures, each beside a reference measured in the same run. Trust the ratios, not the numbers."""

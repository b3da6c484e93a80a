"""Colours, painted maps and plots: what exhibits draw with."""

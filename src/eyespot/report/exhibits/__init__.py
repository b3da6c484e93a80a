"""Figures of what encoders make of a few pictures, one module per kind."""

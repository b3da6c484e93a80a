"""Whole pages: of a run, of folders, of an evaluation; model cards and contact sheets."""

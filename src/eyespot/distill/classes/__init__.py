"""Distillation of classifiers: what teacher and student say, and the methods that compare it."""

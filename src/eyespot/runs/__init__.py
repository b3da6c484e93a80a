"""How a recipe becomes a folder: stages, students, results, report and cards."""

"""How pictures and labels become batches."""

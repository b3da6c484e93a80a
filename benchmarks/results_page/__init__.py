"""The page of results, the README's table and picture: all of their numbers come from `benchmarks/results/*.json`."""

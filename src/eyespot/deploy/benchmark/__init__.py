"""Which runtime to pick: latency, memory, load time and more of several, side by side."""

from eyespot.deploy.benchmark.run_benchmark import benchmark
from eyespot.deploy.benchmark.runtimes import RUNTIMES, Runtime
from eyespot.deploy.benchmark.table import BenchmarkTable, Group, Row

__all__ = ["RUNTIMES", "BenchmarkTable", "Group", "Row", "Runtime", "benchmark"]

"""eyespot beside its peers: speed and quality, each in its own process and environment. See docs/peers.md.

    python benchmarks/peers.py setup --envs ENVS
    python benchmarks/peers.py speed --envs ENVS
    python benchmarks/peers.py quality --envs ENVS [--data DATA]

The code lies in the folder `peers` beside this file, since parts of it run where eyespot is not installed.
"""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_suffix("")), run_name="__main__")

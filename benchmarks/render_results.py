"""Makes `docs/results.md`, its picture and the README's results from `benchmarks/results/*.json`.

    python benchmarks/render_results.py [--check]

With --check nothing is written; the files that are stale are named, and the exit code is 1 if there are any.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from results_page.page import rendered

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Writes or checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, name what is stale")
    check = parser.parse_args().check
    stale = {
        path: text for path, text in rendered(ROOT).items() if not path.exists() or path.read_text("utf-8") != text
    }
    for path, text in stale.items():
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
    if check and stale:
        raise SystemExit("run `python benchmarks/render_results.py` and commit what it writes")


if __name__ == "__main__":
    main()

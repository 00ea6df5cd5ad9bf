"""Pictures of a page in a real browser, light and dark, for the documentation.

python benchmarks/page_shots.py PAGE.html PREFIX [--width 1280] [--height 1500] [--click L]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    """Take one picture a colour scheme."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("prefix")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--click", help="Label of a filter to choose first.")
    args = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for scheme in ("light", "dark"):
            page = browser.new_page(
                viewport={"width": args.width, "height": args.height},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            page.goto(args.page.resolve().as_uri())
            if args.click:
                page.get_by_label(args.click).first.check()
            page.screenshot(path=f"{args.prefix}-{scheme}.png")
        browser.close()


if __name__ == "__main__":
    main()

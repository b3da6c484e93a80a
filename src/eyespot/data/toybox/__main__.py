"""`python -m eyespot.data.toybox SHEET.png` writes a contact sheet."""

import argparse

from eyespot.data.toybox.sheet import contact_sheet

parser = argparse.ArgumentParser(
    prog="python -m eyespot.data.toybox", description="Write a contact sheet of the toybox."
)
parser.add_argument("path", help="where the PNG goes")
parser.add_argument("--first", type=int, default=0, help="seed of the first scene (default 0)")
parser.add_argument("--count", type=int, default=24, help="how many scenes (default 24)")
parser.add_argument("--size", type=int, default=128, help="pixels per picture (default 128)")
parser.add_argument("--detailed", type=int, default=4, help="how many scenes are shown with all maps (default 4)")
options = parser.parse_args()
contact_sheet(options.path, range(options.first, options.first + options.count), options.size, options.detailed)

"""The pictures of the documentation, made by dpmed itself: `python -m tests.pictures docs/pictures` (a minute or so).

Each is what a command writes, with fewer colours, which makes it a few times smaller; the digits are public.
"""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

COMMANDS = """
bounds quickstart --eps-min 0.1 --eps-max 1e4 --num 120 --out bounds
reconstruct quickstart --eps 1 --eps 8 --eps 100 --eps 1e6 --out attack
match attack --out matches
visualize matches --images 4 --out report
train quickstart --out first
train quickstart --epsilons 0.3,1,3,8,20 --out budgets
"""
PICTURES = {
    "bounds.png": "bounds/bounds.png",
    "attack.png": "report/reconstructions_ordered.png",
    "accuracy.png": "budgets/sweep.png",
    "curves.png": "first/curves.png",
}
_COLOURS = 48


def main(folder: Path) -> None:
    """Call the commands in a folder of their own and keep the pictures."""
    with tempfile.TemporaryDirectory() as place:
        for line in COMMANDS.strip().splitlines():
            subprocess.run([sys.executable, "-m", "dpmed", "--quiet", *shlex.split(line)], cwd=place, check=True)
        for name, source in PICTURES.items():
            with Image.open(Path(place) / source) as picture:
                picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(folder / name, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

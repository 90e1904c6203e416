"""What the scripts of all studies share: dmstore's commands, shown before they run, and what they said, kept.

Every step may be repeated: one that is done says so and costs little, and training goes on where it was killed.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import click

import dmstore

PENDING = 3


class Steps:
    """Commands of one study, in order.

    Parameters
    ----------
    folder : path
        Where the study, its results and what the commands said go.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "said").mkdir(exist_ok=True)
        self._began = time.monotonic()

    def __call__(self, name, *arguments, may_end_with=()):
        """Run ``dmstore ARGUMENTS`` in the folder, and keep what it prints as ``said/NAME.txt``.

        Returns
        -------
        str
            What it printed on stdout.
        """
        words = [str(word) for word in arguments]
        shown = f"$ dmstore {shlex.join(words)}"
        click.echo(shown, err=True)
        done = subprocess.run(
            [sys.executable, "-m", "dmstore", *words],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode not in (0, *may_end_with):
            sys.exit(
                f"this ended with {done.returncode}; mend what it says and run the study again"
            )
        (self.folder / "said" / f"{name}.txt").write_text(
            f"{shown}\n{done.stdout}", encoding="utf-8"
        )
        return done.stdout

    def open(self, name):
        """The study of this name in the folder, or None."""
        place = self.folder / name
        return dmstore.open_study(place) if place.is_dir() else None

    def end(self):
        """Say how long it took."""
        minutes = (time.monotonic() - self._began) / 60
        click.echo(f"{self.folder}: done in {minutes:.1f} min", err=True)

"""What the a2 engine needs on this machine, and getting it: the checkpoint and the libraries. Only when a person asks.

catalogue.py   what is installed, partly here or absent: reads the disk, asks no network
store.py       one repository in the hub's cache on disk: listing, partial files, whole files
hub.py         the hub over HTTP: what a repository holds, and its bytes from any point on
download.py    the missing bytes, verified; verify and delete
libraries.py   requirements-a2.txt into Troupe's own .venv
work.py        work in a process of its own: its lock, its status on disk, how it is stopped
words.py       how much, how far, how long
command.py     `python launch.py models …`

Nothing here imports torch.
"""

from engine.models.catalogue import ModelState, installed_release, look
from engine.models.libraries import Libraries, look_at_libraries
from engine.models.work import Status, Work

__all__ = ["Libraries", "ModelState", "Status", "Work", "installed_release", "look", "look_at_libraries"]

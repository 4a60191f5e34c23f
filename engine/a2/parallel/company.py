"""The processes of a crew, as the recipe sees them from within one of them: engine/a2/ensemble.py for several.

Prompt and pictures are encoded by the first alone, and given to all: the encoders need not be in memory so often, and
all begin with the same numbers. What is encoded takes a second of a clip's minutes.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from engine.a2.ensemble import Ensemble
from engine.a2.parallel.agree import Agreement
from engine.a2.parallel.context import configure, divided, unread_of
from engine.a2.plan.degrees import Degrees
from engine.errors import StopCheck, Stopped

if TYPE_CHECKING:
    import torch

    from engine.a2.plan.course import Component

T = TypeVar("T")

_NEVER = timedelta(days=7)  # who is gone is seen by who has started us


class Meeting:
    """The process groups that a crew works in: opened once, since that is done by all at once. `device` is "cuda" or
    "cpu"."""

    def __init__(self, rank: int, size: int, device: str, place: str) -> None:
        """Meet the others over a file at `place`, which only we can read: no port is opened for that."""
        import torch.distributed as dist

        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, f"file://{place}", timeout=_NEVER, world_size=size, rank=rank)
        self.rank, self.size, self.device = rank, size, device
        self.talk = dist.new_group(backend="gloo", timeout=_NEVER)  # on the host, whatever is computed on
        self._meshes: dict[tuple[int, int], tuple[Any, Any]] = {}

    def mesh(self, degrees: Degrees) -> tuple[Any, Any]:
        """Return a mesh with the dimensions "passes", "ring" and "ulysses", and diffusers' configuration for it (None
        where no tokens are divided)."""
        from torch.distributed.device_mesh import init_device_mesh

        shape = degrees.groups, degrees.split
        if shape not in self._meshes:
            names = ("passes", "ring", "ulysses")
            mesh = init_device_mesh(self.device, (degrees.groups, 1, degrees.split), mesh_dim_names=names)
            self._meshes[shape] = mesh, configure(mesh["ring", "ulysses"], degrees.split) if degrees.split > 1 else None
        return self._meshes[shape]


class Company(Ensemble):
    """All processes that make one clip, from within one. `stop` is this one's; `host` the bytes of memory for each.
    `on_wait` is called where this one waits for what the others load."""

    def __init__(
        self, meeting: Meeting, degrees: Degrees, stop: StopCheck, host: int | None = None,
        on_wait: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self.size, self.leads, self.splits = meeting.size, meeting.rank == 0, degrees.split > 1
        self.left_out: tuple[Component, ...] = () if self.leads else ("text_encoder", "image_encoder")
        self._meeting, self._degrees, self._stop, self._host = meeting, degrees, stop, host
        self._on_wait = on_wait
        self._mesh, self._parallel = meeting.mesh(degrees)
        self._agreement = Agreement(meeting.talk)
        self._blocks = 0

    # -- the same for all --------------------------------------------------------------------

    def share(self, make: Callable[[], T]) -> T:
        import torch.distributed as dist

        told: list[Any] = [None]
        if self.leads:
            with contextlib.suppress(Stopped):
                told = [(make(),)]
        dist.broadcast_object_list(told, src=0, group=self._meeting.talk)
        if told[0] is None:
            raise Stopped
        (made,) = told[0]
        return made  # type: ignore[no-any-return]  # what `make` returns, pickled

    @contextlib.contextmanager
    def lead_first(self) -> Iterator[None]:
        """Let the first read from the disk and quantise, and the others then find the file that it has written."""
        if not self.leads and self._agreement.any(False):
            self._agreement.any(True)
            raise Stopped
        stopped = False
        try:
            yield
        except Stopped:
            stopped = True
        if self.leads:
            stopped = self._agreement.any(stopped)
        if self._agreement.any(stopped, self._on_wait):
            raise Stopped

    def heeding(self, stop: StopCheck | None) -> StopCheck:
        return self._wants_stop

    def _wants_stop(self) -> bool:
        return self._agreement.any_before(self._stop())

    def room(self, free: int | None) -> int | None:
        return free if self._host is None or free is None else min(free, self._host)

    # -- the transformer -----------------------------------------------------------------------

    @contextlib.contextmanager
    def splitting(self, transformer: Any, tokens: int, unread: int) -> Iterator[int]:
        self._blocks = len(transformer.blocks)
        if self._parallel is None:
            yield unread
            return
        with divided(transformer, self._parallel):
            yield unread_of(tokens, unread, self._degrees.split, self._mesh.get_local_rank("ulysses"))

    def in_turn(self, names: Sequence[str], act: Callable[[str], T]) -> dict[str, T]:
        """Do something for every so many-th name. A group without a last one is asked for a stop as often as the
        others are."""
        groups, done = self._degrees.groups, {}
        for begin in range(0, len(names), groups):
            mine = names[begin : begin + groups][self._group : self._group + 1]
            for name in mine:
                done[name] = act(name)
            for _ in range(self._blocks if not mine else 0):
                if self._wants_stop():
                    raise Stopped
        return done

    @property
    def _group(self) -> int:
        return int(self._mesh.get_local_rank("passes"))

    def passes(self, names: Sequence[str], run: Callable[[str], torch.Tensor]) -> list[torch.Tensor]:
        import torch
        import torch.distributed as dist

        flows = list(self.in_turn(names, run).values())
        groups, rounds = self._degrees.groups, -(-len(names) // self._degrees.groups)
        if groups == 1:
            return flows
        mine = torch.cat([*flows, *[torch.zeros_like(flows[0])] * (rounds - len(flows))])
        gathered = [torch.empty_like(mine) for _ in range(groups)]
        dist.all_gather(gathered, mine, group=self._mesh.get_group("passes"))
        size = flows[0].shape[0]
        return [gathered[i % groups][i // groups * size :][:size] for i in range(len(names))]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        import torch.distributed as dist

        summed = values.clone()
        dist.all_reduce(summed, group=self._mesh.get_group("ulysses"))
        return summed / self._degrees.split

    def merged(self, told: Mapping[str, bool]) -> Mapping[str, bool]:
        import torch.distributed as dist

        everybodys: list[Any] = [None] * self.size
        dist.all_gather_object(everybodys, list(told.items()), group=self._meeting.talk)
        of_groups = everybodys[:: self._degrees.split]  # those that share a pass tell the same
        in_order = itertools.chain(*itertools.zip_longest(*of_groups))  # as `in_turn` has dealt them out
        return dict(each for each in in_order if each is not None)

    # -- the decoder ---------------------------------------------------------------------------

    def pieces(
        self, works: Sequence[Callable[[], torch.Tensor]], shapes: Iterable[Sequence[int]]
    ) -> Iterator[torch.Tensor]:
        """Do every so many-th work, and send what comes of it to the first. Whether to stop is asked once."""
        import torch
        import torch.distributed as dist

        if self._agreement.any(self._stop()):
            raise Stopped
        for index, (work, shape) in enumerate(zip(works, shapes, strict=True)):
            whose = index % self.size
            if whose == self._meeting.rank:
                made = work()
                if self.leads:
                    yield made
                else:
                    dist.send(made.float().cpu().contiguous(), 0, group=self._meeting.talk)
            elif self.leads:
                piece = torch.empty(tuple(shape))
                dist.recv(piece, whose, group=self._meeting.talk)
                yield piece

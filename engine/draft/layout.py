"""Who stands where: believable sizes on a ground line, nobody's face hidden."""

from __future__ import annotations

from engine.draft.people import place_people
from engine.draft.stage import Player, StageFrame, stage_of
from engine.draft.things import in_hand, place_things
from engine.scene.scene import Placement

__all__ = ["Player", "StageFrame", "place", "stage_of"]


def place(players: dict[int, Player], stage: StageFrame) -> dict[int, Placement]:
    """Place all players, by cast index; explicit placements are returned unchanged."""
    placed = {i: p.element.placement for i, p in players.items() if p.element.placement is not None}
    place_people(players, placed, stage)
    for i, player in players.items():
        if player.act.holder is not None and i not in placed:
            placed[i] = in_hand(players, placed, i, player.act.holder, stage)
    place_things(players, placed, stage)
    return {i: placed[i] for i in players}

"""What happens when, decided before anything starts, by the seed alone.

A `Plan` names the streams and the plugs that are pulled, in seconds after the first picture. The same seed
gives the same streams, outage, kills and the same dice in the origin; only the clock of the machine differs.

    0           0.3          0.45         0.6           0.8         1.0   of the duration
    |  steady   |   origin is down        |  catching up            |  the rest drains
                             | kill                     | kill

The first kill falls into the outage, when most of the backlog is on disk only. The second falls into an upload,
between "the origin has stored it" and "the queue knows": the item comes back and is sent again.
"""

from __future__ import annotations

import random

import msgspec


class Stream(msgspec.Struct, frozen=True):
    name: str
    premium: bool
    picture: int  # which moving picture, see encoder.PICTURES
    seed: int


class Plan(msgspec.Struct, frozen=True):
    duration_s: float
    seed: int
    streams: tuple[Stream, ...]
    outage_at_s: float
    kill_in_outage_at_s: float
    outage_ends_s: float
    kill_in_upload_at_s: float
    restart_after_s: float

    @classmethod
    def from_seed(cls, seed: int, *, duration_s: float, streams: int) -> Plan:
        dice = random.Random(seed)

        def about(share: float) -> float:
            return round(duration_s * (share + dice.uniform(-0.02, 0.02)), 3)

        return cls(
            duration_s=duration_s,
            seed=seed,
            streams=name_streams(streams, dice),
            outage_at_s=about(0.28),
            kill_in_outage_at_s=about(0.44),
            outage_ends_s=about(0.60),
            kill_in_upload_at_s=about(0.80),
            restart_after_s=0.5,
        )


def name_streams(count: int, dice: random.Random) -> tuple[Stream, ...]:
    """A third of the streams pay for precedence, one at least. They come first, as everywhere below."""
    premium = max(1, count // 3)
    names = [f"premium-{n}" for n in range(1, premium + 1)]
    names += [f"normal-{n}" for n in range(1, count - premium + 1)]
    return tuple(
        Stream(name=name, premium=n < premium, picture=n, seed=dice.randrange(1, 1 << 16))
        for n, name in enumerate(names)
    )

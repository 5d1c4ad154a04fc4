"""The hours in which a run may work, such as ``22:00-06:00 Europe/Berlin``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final, Self
from zoneinfo import ZoneInfo

PATTERN: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9] [A-Za-z0-9_+/-]+"
EXAMPLE: Final = "22:00-06:00 Europe/Berlin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """From ``start`` to ``end`` of each day in a time zone, over midnight if ``end`` is earlier."""

    start: time
    end: time
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError with what is wrong."""
        if re.fullmatch(PATTERN, text) is None:
            raise ValueError(f"expected the form {EXAMPLE}")
        hours, _, name = text.partition(" ")
        start, end = map(time.fromisoformat, hours.split("-"))
        if start == end:
            raise ValueError(
                "they begin and end at the same time; leave `hours` out if a run may always work"
            )
        try:
            zone = ZoneInfo(name)
        except (OSError, ValueError, KeyError):  # a directory of the zones, a bad name, an unknown zone
            raise ValueError(
                f"unknown time zone {name}; expected a name such as Europe/Berlin or UTC"
            ) from None
        return cls(start=start, end=end, zone=zone)

    def opens_at(self, now: datetime) -> datetime | None:
        """When they begin next; None if ``now`` is within them."""
        local = now.astimezone(self.zone)
        at = local.time()
        is_within = (
            self.start <= at < self.end if self.start < self.end else at >= self.start or at < self.end
        )
        if is_within:
            return None
        day = local.date() + timedelta(days=at >= self.start)
        return datetime.combine(day, self.start, tzinfo=self.zone)

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M} {self.zone.key}"

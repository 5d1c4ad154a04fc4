"""Which boundary of the plan a request is: its stage, step, session, statement, and the statement before it.

Requests are not numbered: sessions run beside each other, and each fault adds the requests of a reconnect.
What differs from run to run, numbers and the runner's UUID, is left out.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

from tests.faults.proxy import Request

_VARIES: Final = re.compile(rb"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9]+")
_STEP: Final = re.compile(rb"\s*UPDATE online_migrate\.step SET state")
_LENGTHS: Final = re.compile(rb"[\0-\x1f]+")  # of the Bind message: counts, formats, lengths


@dataclass(slots=True)
class Boundaries:
    """Names the boundary of each request of one stage, in the order in which they come; for one thread at a
    time.
    """

    stage: str
    _step: bytes = field(init=False, default=b"")
    _before: dict[tuple[str, int], bytes] = field(init=False, default_factory=dict)

    def name(self, request: Request) -> str:
        """The same for the same boundary of another run; 16 hexadecimal digits."""
        statement = _VARIES.sub(b"#", request.statement)
        parameters = _LENGTHS.sub(b" ", _VARIES.sub(b"#", request.parameters))
        if _STEP.match(request.statement):
            self._step = parameters
        session = (request.session, request.pid)
        before = self._before.get(session, b"")
        self._before[session] = statement
        known = (self.stage.encode(), self._step, request.session.encode(), before, statement, parameters)
        return hashlib.sha256(b"\0".join(known)).hexdigest()[:16]

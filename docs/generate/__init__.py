"""Make the parts of the documentation that the code knows: parameters, SQL, locks, options, metrics, exit
codes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
"""of the project"""

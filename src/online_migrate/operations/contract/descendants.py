"""Partitions and inheriting tables: which operations take them along, which want each named, which refuse
them.
"""

from __future__ import annotations

from enum import Enum


class Descendants(Enum):
    """What an operation on a table means for the tables below it."""

    ANY = "any"
    """it says itself what it does with them"""
    ALONG = "along"
    """the server changes them too, in the same transaction; their locks are declared with the table's"""
    APART = "apart"
    """a partitioned root is refused, and each partition is to be named; of another parent its own rows are
    meant, and they only"""
    REFUSED = "refused"
    """what is promised of the table binds them as well, and would have to be proven
    of them, which it is not"""

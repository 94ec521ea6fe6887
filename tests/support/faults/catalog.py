"""Every campaign, in the order of the table."""

from __future__ import annotations

from . import crafted, damage, disks, kills, requests, soak

FAULTS = [fault for module in (kills, disks, damage, crafted, requests, soak) for fault in module.FAULTS]

"""Fault campaigns: what is done to builds, datasets and loaders, how often, and whether they survive it.

`make faults` runs them all (`TIMES=20` for hours), `tests/loaders/test_faults.py` a bounded part. A campaign is a
`Fault`; its module lists it in FAULTS, and `faults.catalog` lists the modules.
"""

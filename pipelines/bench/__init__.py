"""Speeds on this machine, as ratios to plain Python in one run: `synthshards bench`.

`plain` holds the plain-Python generators, `timing` the clock, `memory` what is timed within this process, `process`
whole processes, `machine` what they ran on, `tables` and `report` what is shown of it, `command` the
command line.
"""

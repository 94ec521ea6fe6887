"""What runs in the environment of another library: it writes rows in that library's own format, with its own writer,
and reads them as its users would, collated to a padded int64 tensor and a bool mask.

Nothing here knows synthshards: these modules are run as ``python -m peers.NAME`` by the library's own Python.
"""

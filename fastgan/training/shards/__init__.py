"""Data in shards: tar files of some megabytes each, in a folder or at a URL, and an index of what is in them.

* `index.py`: the index, `fastgan-shards.json`.
* `store.py`: reads files out of shards; `cache.py`: the shards of a URL that this machine keeps.
* `paths.py`: files and folders in shards, used as those of a disk are.
* `writer.py`: `fastgan data shard`.
"""

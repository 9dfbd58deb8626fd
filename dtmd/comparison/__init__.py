"""MD against AIMD: the files of all sides, read once, every observable gathered on the way and told in sections."""

"""Commands in, events out: sessions as containers, pods or processes."""

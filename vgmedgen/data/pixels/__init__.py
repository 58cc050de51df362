"""How one file becomes pixels and a mask; `vgmedgen.data.images` is the door to it.

What a file shows is a function of that file alone: nothing is scaled by what others of
its series hold, so one patient's picture never depends on another's. Whatever a file
leaves open (which greys, which of several labels, which of several pages) is refused by
name, for a picture that is silently wrong trains like a right one.
"""

MOST_PIXELS = 64_000_000
"""Of one image, about 8000 x 8000; checked before anything is decoded."""
MOST_BYTES = 1 << 29
"""Of one file: 64 million pixels of 16 bit RGB, and a header."""
READING = "2"
"""Of these rules; what was prepared or looked at under others is done again."""

"""A photo file with all that must survive a change of some of its pixels: size, colours, orientation, profile, EXIF.

What lives here: decoding without losing anything unsaid, encoding again, and copying without the place. What must not:
faces and what is done to them. In memory a photo is `bench.faces.whole_photo.PhotoFile`.
"""

from bench.photo_tools.photo_files.exif import copy_without_location, without_location
from bench.photo_tools.photo_files.kinds import SUFFIXES, Format, is_heif, kind_by_suffix, kind_of
from bench.photo_tools.photo_files.reading import read
from bench.photo_tools.photo_files.writing import encode, notes_as

__all__ = [
    "SUFFIXES",
    "Format",
    "copy_without_location",
    "encode",
    "is_heif",
    "kind_by_suffix",
    "kind_of",
    "notes_as",
    "read",
    "without_location",
]

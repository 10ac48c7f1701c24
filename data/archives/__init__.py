"""Official archives of data sets, read without trust and in bounded memory, and made into files of our layout."""

from data.archives.official import Official
from data.archives.preparation import OTHER_ARCHIVE, Prepared, Tell, begun_from_other, partial_folder, prepare

__all__ = ["OTHER_ARCHIVE", "Official", "Prepared", "Tell", "begun_from_other", "partial_folder", "prepare"]

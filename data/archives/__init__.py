"""Official archives of data sets, read without trust and in bounded memory, and made into files of our layout."""

from data.archives.official import Official
from data.archives.preparation import Prepared, Tell, partial_folder, prepare

__all__ = ["Official", "Prepared", "Tell", "partial_folder", "prepare"]

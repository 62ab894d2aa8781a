"""What files and folders of a data set are called, the same on every machine."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""File name endings, in lower case, that mark an image."""

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
"""Endings, in lower case, of what is read as a table."""

TRAIN_FOLDER = "train"
VAL_FOLDERS = ("val", "valid", "validation")
TEST_FOLDER = "test"

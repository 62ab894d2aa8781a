"""What files and folders of a data set are called, the same on every machine."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""File name endings, in lower case, that mark an image."""

TRAIN_FOLDER = "train"
VAL_FOLDERS = ("val", "valid", "validation")
TEST_FOLDER = "test"

"""What a config file may say, how it is read, and how it is written."""

"""The command line: classifiers by name, the methods that explain them, the table and the picture."""

"""The command line: verbs by name, settings from options and YAML files, messages and progress bars."""

"""The commands of `hrm`, one a file: arguments in, library calls, text or JSON out."""

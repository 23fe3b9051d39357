"""The log that each data worker writes before the last bytes of an answer leave, and its reader."""

"""What is measured and logged: two consumers of observations. The data path imports neither
library.
"""

"""One file per envelope: the URL, the credential, the framing and the fields that move between
body and path.
"""

"""Which model an endpoint is asked for (wire.md §1)."""

from collections.abc import Mapping

from proxy.model.tenancy import Endpoint


def model_for(endpoint: Endpoint, name: str, aliases: Mapping[str, str]) -> str:
    """The endpoint's own name of the model that the caller called `name`.

    `aliases` is the primary's map.  A caller who says one of its values means its key, so that
    another endpoint can look that up; the first of two keys with one value counts.  A name that is
    listed nowhere goes through as it is.
    """
    known = endpoint.models
    if not known:
        return name
    if name in known:
        return known[name]
    for alias, model in aliases.items():
        if model == name and alias in known:
            return known[alias]
    return name

"""The documents of the configuration file as the control API shows them, with where they stand."""

from proxy.control.config import Declared
from proxy.model.documents import slug
from proxy.model.exchange import Json
from proxy.settings.schema import Config


def declared(config: Config, file_name: str) -> dict[tuple[str, str], list[Declared]]:
    """By workspace and kind."""
    found: dict[tuple[str, str], list[Declared]] = {}
    for index, workspace in enumerate(config.workspaces):
        at = f"{file_name}#/workspaces/{index}"
        for place, rule in enumerate(workspace.alert_rules):
            said: dict[str, Json] = rule.model_dump(mode="json", by_alias=True, exclude_unset=True)
            said["id"] = rule.id or slug(rule.name)
            rules = found.setdefault((workspace.id, "alert_rule"), [])
            rules.append((f"{at}/alert_rules/{place}", said))
        for place, target in enumerate(workspace.deliveries):
            known: dict[str, Json] = target.model_dump(
                mode="json", by_alias=True, exclude_unset=True
            )
            known["id"] = target.id or slug(target.name)
            targets = found.setdefault((workspace.id, "delivery"), [])
            targets.append((f"{at}/deliveries/{place}", known))
        for place, watcher in enumerate(workspace.watchers):
            told: dict[str, Json] = watcher.model_dump(
                mode="json", by_alias=True, exclude_unset=True
            )
            watchers = found.setdefault((workspace.id, "watcher"), [])
            watchers.append((f"{at}/watchers/{place}", told))
    return found

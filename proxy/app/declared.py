"""The documents of the configuration file as the control API shows them, with where they stand."""

from proxy.control.alert_rules import ALERT_RULE
from proxy.control.config import Declared
from proxy.control.deliveries import DELIVERY
from proxy.control.watchers import WATCHER
from proxy.model.documents import slug
from proxy.model.exchange import Json
from proxy.settings.schema import Config


def declared(config: Config, file_name: str) -> dict[tuple[str, str], list[Declared]]:
    """By workspace and kind.  What has no id of its own gets it from its name."""
    found: dict[tuple[str, str], list[Declared]] = {}
    for index, workspace in enumerate(config.workspaces):
        for kind, member, documents in (
            (ALERT_RULE, "alert_rules", workspace.alert_rules),
            (DELIVERY, "deliveries", workspace.deliveries),
            (WATCHER, "watchers", workspace.watchers),
        ):
            for place, document in enumerate(documents):
                said: dict[str, Json] = document.model_dump(
                    mode="json", by_alias=True, exclude_unset=True
                )
                if not said.get(kind.id_member):
                    said[kind.id_member] = slug(str(said["name"]))
                where = f"{file_name}#/workspaces/{index}/{member}/{place}"
                found.setdefault((workspace.id, kind.name), []).append((where, said))
    return found

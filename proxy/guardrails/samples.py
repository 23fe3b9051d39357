"""Texts of every common kind: to warm a guard, and to see whether a rule hits nearly everything.

All of it was made up for this file.
"""

from typing import Final

SENTENCES: Final = (
    "The meeting was moved to Thursday, so please check the room before you come.",
    "Add two cups of flour and stir until no lumps are left.",
    "I could not reproduce the problem on my machine; which version do you use?",
    "Our train leaves at 10:45 from platform 7 and arrives shortly after noon.",
    "The function returns a list of pairs, sorted by their first element.",
    "She said that the garden had never looked better than this summer.",
    "Das Paket ist gestern angekommen, aber die Rechnung fehlt noch.",
    "Merci beaucoup pour votre réponse rapide et détaillée.",
    "El informe trimestral muestra un aumento del 3,5 % en las ventas.",
    "Can you summarise the second chapter in three short bullet points?",
    "If the light turns red, wait ten seconds and press the button again.",
    "Most birds of this family build their nests close to the water.",
    "The invoice total is $1,240.00 and is due by the end of the month.",
    "To install the package, run the command below and restart your shell.",
    "Nobody expected the old bridge to survive the flood of 1997.",
    "Remember to water the plants twice a week while we are away.",
    "The theorem follows by induction on the number of edges.",
    "我们明天上午九点在办公室开会。",
    "会議は来週の火曜日に延期されました。",
    "Press Ctrl+S to save your work, then close all other windows.",
    "The patient reported mild headaches after changing the dosage.",
    "Translate the following paragraph into plain English, please.",
    "Our team won by two goals although we played badly at first.",
    "There are several ways to do this, and none of them is perfect.",
    "Light travels about 300,000 kilometres in one second.",
)

_PROSE: Final = " ".join(SENTENCES) + "\n\n" + "\n- ".join(SENTENCES)
_CODE: Final = '''
import sys
from dataclasses import dataclass, field

@dataclass
class Node:
    """A node of the tree."""
    name: str
    children: list["Node"] = field(default_factory=list)

def walk(node, depth=0, *, limit=10):
    if depth > limit or node is None:
        return []
    found = [(depth, node.name.lower())]
    for child in node.children:
        found += walk(child, depth + 1, limit=limit)
    return found

const total = items.filter((x) => x.price >= 9.99 && !x.hidden).map(x => x.price * 1.2);
for (int i = 0; i < n; ++i) { std::cout << values[i] << " "; }
SELECT id, name FROM users WHERE created_at > '2024-01-01' ORDER BY name LIMIT 20;
curl -s https://api.example.org/v1/items?page=2 | grep -v "none" > /tmp/out.txt
'''
_JSON: Final = (
    '{"id": "item-42", "tags": ["a", "b_c"], "ok": true, "n": -1.5e3, "sub": {"k": null}} '
)
_BASE64: Final = (
    "QmFzZTY0IHRleHQgaXMgbG9uZyBhbmQgaGFzIG5vIHNwYWNlcyBpbiBpdCBhdCBhbGw+/9x7Zk3vJw0pLtYq"
)
_DIGITS: Final = "4092 1187 33 5550 0021-778 12.50 1999/12/31 08:15:59 600,000 +49 30 901820 "
_HEX: Final = "3fa9c0de77b1e4d25a6f8890 be:ef:01:9c:7d:42 0x7ffee4b2 2001:0db8::8a2e:0370 "

WARM: Final = (_PROSE, _CODE, _JSON * 6, _BASE64 * 8, _DIGITS * 8, _HEX * 6)

"""What binds a request to one provider account, and the conversation that it names."""

import json

import pytest

from proxy.wire.bound import bound_by, conversation_of

# fmt: off
BODIES = [
    # body, and what binds it
    ('{"messages":[{"role":"user","content":"file_id"}]}', ""),
    ('{"previous_response_id":"resp_1"}', "previous_response_id"),
    ('{"previous_response_id":null,"conversation":null,"container":null}', ""),
    ('{"conversation":"conv_1"}', "conversation"),
    ('{"conversation":{"id":"conv_1"}}', "conversation"),
    ('{"background":true}', "background"),
    ('{"background":false}', ""),
    ('{"prompt":{"id":"pmpt_1","version":"2"}}', "prompt"),
    ('{"prompt":"Once upon a time"}', ""),
    ('{"cachedContent":"cachedContents/1"}', "cachedContent"),
    ('{"container":"container_1","messages":[]}', "container"),
    ('{"input":[{"type":"item_reference","id":"msg_1"}]}', "item_reference"),
    ('{"input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}', "file_id"),
    ('{"messages":[{"content":[{"type":"file","file":{"file_id":"f"}}]}]}', "file_id"),
    ('{"messages":[{"content":[{"type":"image","source":{"type":"file","file_id":"f"}}]}]}',
     "file_id"),
    ('{"messages":[{"content":[{"type":"tool_result","content":[{"source":{"file_id":"f"}}]}]}]}',
     "file_id"),
    ('{"contents":[{"parts":[{"fileData":{"fileUri":"files/1"}}]}]}', "fileUri"),
    # a caller's own tools are nobody's state
    ('{"messages":[{"content":[{"type":"tool_use","input":{"file_id":"f"}}]}]}', ""),
    ('{"contents":[{"parts":[{"functionCall":{"args":{"file_id":"f"}}}]}]}', ""),
    ('{"tools":[{"function":{"parameters":{"properties":{"file_id":{}}}}}]}', ""),
]
CONVERSATIONS = [
    ('{}',                                            None),
    ('{"conversation":"c"}',                          "c"),
    ('{"conversation":{"id":"c"}}',                   "c"),
    ('{"prompt_cache_key":"k"}',                      "k"),
    ('{"metadata":{"conversation_id":"m"}}',          "m"),
    ('{"metadata":{"conversation_id":7}}',            None),
    ('{"metadata":["conversation_id"]}',              None),
]
# fmt: on


@pytest.mark.parametrize(("body", "member"), BODIES)
def test_bound_by(body: str, member: str) -> None:
    assert bound_by(json.loads(body)) == member


@pytest.mark.parametrize(("body", "named"), CONVERSATIONS)
def test_conversation_of(body: str, named: str | None) -> None:
    assert conversation_of(json.loads(body)) == named

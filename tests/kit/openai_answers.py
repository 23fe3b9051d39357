"""What OpenAI and its likes answer: chat, legacy completions, embeddings, model lists."""

import json
from urllib.parse import unquote

from tests.kit import frames
from tests.kit.script import Answer, Failure, Headers, Request, Send, StepKind

HEARTBEAT = b": hb\n\n"
OPENAI_TYPES = {
    401: "authentication_error", 403: "permission_error", 429: "rate_limit_error",
}  # fmt: skip


class _OpenAI:
    """What all OpenAI bodies share."""

    stream_type = "text/event-stream; charset=utf-8"

    def model(self, request: Request) -> str:
        return str(request.json.get("model", ""))

    def streamed(self, request: Request) -> bool:
        return bool(request.json.get("stream"))

    def refuse(self, request: Request) -> Failure | None:
        if request.method != "GET" and not request.json:
            return Failure(400, message="We could not parse the JSON body of your request.")
        return None

    def headers(self, answer: Answer, request: Request) -> Headers:
        return (("x-request-id", f"req_{request.number}"), ("openai-processing-ms", "5"))

    def failure(self, failure: Failure, request: Request) -> tuple[Headers, bytes]:
        return (("x-request-id", f"req_{request.number}"),), json.dumps(_openai(failure)).encode()

    def in_band(self, failure: Failure) -> bytes:
        return frames.sse(json.dumps(_openai(failure)))

    def ping(self) -> bytes:
        return HEARTBEAT

    def spoilt(self, data: bytes, *, structural: bool) -> bytes:
        return b"data: " + data + b"\n\n"


class Chat(_OpenAI):
    """`POST …/chat/completions`."""

    def whole(self, answer: Answer, request: Request) -> bytes:
        message: dict[str, object] = {
            "role": "assistant", "content": answer.text or None, "refusal": None,
        }  # fmt: skip
        if answer.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": "".join(call.fragments)},
                }
                for call in answer.calls
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _stop(answer)}
        body = {
            "id": f"chatcmpl-{request.number}", "object": "chat.completion", "created": 1,
            "model": answer.model or self.model(request), "choices": [choice],
        }  # fmt: skip
        return json.dumps(body | _openai_usage(answer)).encode()

    def frames(self, answer: Answer, request: Request) -> list[Send]:
        wants_usage = bool((request.json.get("stream_options") or {}).get("include_usage"))

        def chunk(kind: StepKind, delta: object, finish: str | None = None) -> Send:
            body = self._chunk(answer, request)
            body["choices"] = [
                {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            ]
            if wants_usage:
                body["usage"] = None
            return Send(frames.sse(json.dumps(body)), kind)

        out = [chunk("start", {"role": "assistant", "content": ""})]
        out += [chunk("content", {"reasoning_content": piece}) for piece in answer.thinking]
        out += [chunk("content", {"content": piece}) for piece in answer.pieces]
        for index, call in enumerate(answer.calls):
            named = {"name": call.name, "arguments": ""}
            first = {"index": index, "id": call.id, "type": "function", "function": named}
            out.append(chunk("content", {"tool_calls": [first]}))
            for piece in call.fragments:
                part = {"index": index, "function": {"arguments": piece}}
                out.append(chunk("content", {"tool_calls": [part]}))
        out.append(chunk("end", {}, _stop(answer)))
        if wants_usage and answer.usage:
            body = self._chunk(answer, request) | {"choices": []} | _openai_usage(answer)
            out.append(Send(frames.sse(json.dumps(body)), "end"))
        return [*out, Send(frames.sse("[DONE]"), "trailer")]

    def _chunk(self, answer: Answer, request: Request) -> dict[str, object]:
        return {
            "id": f"chatcmpl-{request.number}", "object": "chat.completion.chunk", "created": 1,
            "model": answer.model or self.model(request),
        }  # fmt: skip


class Completions(_OpenAI):
    """`POST …/completions`, the legacy one."""

    def whole(self, answer: Answer, request: Request) -> bytes:
        return json.dumps(
            self._body(answer, request, answer.text, answer.stop or "stop") | _openai_usage(answer)
        ).encode()

    def frames(self, answer: Answer, request: Request) -> list[Send]:
        out = [
            Send(frames.sse(json.dumps(self._body(answer, request, piece, None))), "content")
            for piece in answer.pieces
        ]
        last = self._body(answer, request, "", answer.stop or "stop")
        out.append(Send(frames.sse(json.dumps(last)), "end"))
        return [*out, Send(frames.sse("[DONE]"), "trailer")]

    def _body(
        self, answer: Answer, request: Request, text: str, finish: str | None
    ) -> dict[str, object]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return {
            "id": f"cmpl-{request.number}", "object": "text_completion", "created": 1,
            "model": answer.model or self.model(request), "choices": [choice],
        }  # fmt: skip


class Embeddings(_OpenAI):
    """`POST …/embeddings`: one short vector for each input."""

    def streamed(self, request: Request) -> bool:
        return False

    def whole(self, answer: Answer, request: Request) -> bytes:
        given = request.json.get("input", "")
        many = isinstance(given, list) and not (given and isinstance(given[0], int))
        rows = [
            {"object": "embedding", "index": index, "embedding": [0.0, 0.5, -1.0, 2.0]}
            for index in range(len(given) if many else 1)
        ]
        tokens = answer.usage.input if answer.usage else 0
        body = {
            "object": "list", "data": rows, "model": answer.model or self.model(request),
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }  # fmt: skip
        return json.dumps(body).encode()

    def frames(self, answer: Answer, request: Request) -> list[Send]:
        raise AssertionError("embeddings are not streamed")


class Models(_OpenAI):
    """`GET …/models`, `GET …/models/{id}`: the shape goes by the `anthropic-version` header."""

    def streamed(self, request: Request) -> bool:
        return False

    def model(self, request: Request) -> str:
        _, found, name = request.path.rpartition("/models/")
        return unquote(name) if found else ""

    def whole(self, answer: Answer, request: Request) -> bytes:
        name, anthropic = self.model(request), "anthropic-version" in request.headers
        row: dict[str, object] = {
            "id": name or "fake", "object": "model", "created": 1, "owned_by": "fake",
        }  # fmt: skip
        if anthropic:
            row = {
                "type": "model", "id": name or "fake", "display_name": "Fake",
                "created_at": "2024-02-29T00:00:00Z",
            }  # fmt: skip
        if name:
            return json.dumps(row).encode()
        page = {"has_more": False, "first_id": "fake", "last_id": "fake"}
        return json.dumps({"data": [row]} | (page if anthropic else {"object": "list"})).encode()

    def frames(self, answer: Answer, request: Request) -> list[Send]:
        raise AssertionError("lists are not streamed")


def _stop(answer: Answer) -> str:
    return answer.stop or ("tool_calls" if answer.calls else "stop")


def _openai_usage(answer: Answer) -> dict[str, object]:
    if answer.usage is None:
        return {}
    tokens = answer.usage
    counted = {
        "prompt_tokens": tokens.input, "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
    }  # fmt: skip
    return {"usage": counted}


def _openai(failure: Failure) -> dict[str, object]:
    usual = "server_error" if failure.status >= 500 else "invalid_request_error"
    kind = failure.type or OPENAI_TYPES.get(failure.status, usual)
    return {
        "error": {
            "message": failure.message, "type": kind, "param": None, "code": failure.code,
        }
    }  # fmt: skip

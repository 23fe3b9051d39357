"""What Claude answers: Anthropic's Messages, and the same through Bedrock's InvokeModel."""

import json
from urllib.parse import unquote

from tests.kit import frames
from tests.kit.script import Answer, Failure, Headers, Request, Send, StepKind

EVENT_STREAM = "application/vnd.amazon.eventstream"
INVOKE_MEMBERS = {
    "anthropic_version", "max_tokens", "messages", "anthropic_beta", "system", "stop_sequences",
    "temperature", "top_p", "top_k", "tools", "tool_choice", "thinking", "metadata",
    "output_config", "safeguards", "context_management",
}  # fmt: skip
ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error",
    403: "permission_error", 404: "not_found_error", 409: "conflict_error",
    413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error",
    529: "overloaded_error",
}  # fmt: skip
AWS_TYPES = {
    400: "ValidationException", 403: "AccessDeniedException", 404: "ResourceNotFoundException",
    408: "ModelTimeoutException", 413: "ValidationException", 424: "ModelErrorException",
    429: "ThrottlingException", 503: "ServiceUnavailableException",
}  # fmt: skip


class Messages:
    """`POST …/messages` of Anthropic."""

    stream_type = "text/event-stream; charset=utf-8"

    def model(self, request: Request) -> str:
        return str(request.json.get("model", ""))

    def streamed(self, request: Request) -> bool:
        return bool(request.json.get("stream"))

    def refuse(self, request: Request) -> Failure | None:
        if "anthropic-version" not in request.headers:
            return Failure(400, message="anthropic-version: header is required")
        missing = [name for name in ("model", "messages") if name not in request.json]
        if "max_tokens" not in request.json and not request.path.endswith("/count_tokens"):
            missing.append("max_tokens")
        return Failure(400, message=f"{missing[0]}: Field required") if missing else None

    def whole(self, answer: Answer, request: Request) -> bytes:
        content: list[dict[str, object]] = []
        if answer.thinking:
            said = "".join(answer.thinking)
            content.append({"type": "thinking", "thinking": said, "signature": "c2ln"})
        if answer.pieces:
            content.append({"type": "text", "text": answer.text})
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
            for call in answer.calls
        ]
        usage = answer.usage.output if answer.usage else 0
        return json.dumps(
            self._message(answer, request, content, usage) | {"stop_reason": _stop(answer)}
        ).encode()

    def frames(self, answer: Answer, request: Request) -> list[Send]:
        return [Send(self._frame(data), kind) for kind, data in self._events(answer, request)]

    def headers(self, answer: Answer, request: Request) -> Headers:
        return (("request-id", f"req_{request.number}"),)

    def failure(self, failure: Failure, request: Request) -> tuple[Headers, bytes]:
        body = _anthropic(failure) | {"request_id": f"req_{request.number}"}
        return (("request-id", f"req_{request.number}"),), json.dumps(body).encode()

    def in_band(self, failure: Failure) -> bytes:
        return frames.sse(json.dumps(_anthropic(failure)), "error")

    def ping(self) -> bytes:
        return frames.sse('{"type": "ping"}', "ping")

    def spoilt(self, data: bytes, *, structural: bool) -> bytes:
        name = b"content_block_start" if structural else b"content_block_delta"
        return b"event: " + name + b"\ndata: " + data + b"\n\n"

    def _frame(self, data: dict[str, object]) -> bytes:
        return frames.sse(json.dumps(data), str(data["type"]))

    def _message(
        self, answer: Answer, request: Request, content: object, output: int
    ) -> dict[str, object]:
        return {
            "id": f"msg_{request.number}", "type": "message", "role": "assistant",
            "model": answer.model or self.model(request), "content": content,
            "stop_reason": None, "stop_sequence": None,
            "usage": {
                "input_tokens": answer.usage.input if answer.usage else 0,
                "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "output_tokens": output,
            },
        }  # fmt: skip

    def _events(self, answer: Answer, request: Request) -> list[tuple[StepKind, dict[str, object]]]:
        start = self._message(answer, request, [], 1)
        out: list[tuple[StepKind, dict[str, object]]] = [
            ("start", {"type": "message_start", "message": start}),
            ("noise", {"type": "ping"}),
        ]
        for index, (shell, deltas) in enumerate(_blocks(answer)):
            kind: StepKind = "content" if shell["type"] == "tool_use" else "start"
            opened = {"type": "content_block_start", "index": index, "content_block": shell}
            out.append((kind, opened))
            for delta in deltas:
                event = {"type": "content_block_delta", "index": index, "delta": delta}
                out.append(("content", event))
            out.append(("end", {"type": "content_block_stop", "index": index}))
        usage = answer.usage
        tokens = {"input_tokens": usage.input, "output_tokens": usage.output} if usage else {}
        delta = {"stop_reason": _stop(answer), "stop_sequence": None}
        out.append(("end", {"type": "message_delta", "delta": delta, "usage": tokens}))
        return [*out, ("trailer", {"type": "message_stop"})]


class CountTokens(Messages):
    """`POST …/messages/count_tokens`."""

    def streamed(self, request: Request) -> bool:
        return False

    def whole(self, answer: Answer, request: Request) -> bytes:
        return json.dumps({"input_tokens": answer.usage.input if answer.usage else 0}).encode()


class Invoke(Messages):
    """Claude through Bedrock's InvokeModel: Anthropic's events, each in a `chunk` message."""

    stream_type = EVENT_STREAM

    def model(self, request: Request) -> str:
        return unquote(request.path.rpartition("/model/")[2].rpartition("/")[0])

    def streamed(self, request: Request) -> bool:
        return request.path.endswith("/invoke-with-response-stream")

    def refuse(self, request: Request) -> Failure | None:
        extra = sorted(request.json.keys() - INVOKE_MEMBERS)
        if extra:
            return Failure(
                400,
                message=f"Malformed input request: extraneous key [{extra[0]}] is not permitted",
            )
        for name in ("anthropic_version", "max_tokens", "messages"):
            if name not in request.json:
                return Failure(400, message=f"{name}: Field required")
        return None

    def headers(self, answer: Answer, request: Request) -> Headers:
        known = (("x-amzn-requestid", f"req_{request.number}"),)
        if self.streamed(request):
            return (*known, ("x-amzn-bedrock-content-type", "application/json"))
        if answer.usage is None:
            return known
        return (
            *known,
            ("x-amzn-bedrock-input-token-count", str(answer.usage.input)),
            ("x-amzn-bedrock-output-token-count", str(answer.usage.output)),
            ("x-amzn-bedrock-invocation-latency", "5"),
        )

    def failure(self, failure: Failure, request: Request) -> tuple[Headers, bytes]:
        name = failure.type or AWS_TYPES.get(failure.status, "InternalServerException")
        headers = (
            ("x-amzn-requestid", f"req_{request.number}"),
            ("x-amzn-errortype", f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"),
        )
        return headers, json.dumps({"message": failure.message}).encode()

    def in_band(self, failure: Failure) -> bytes:
        body: dict[str, object] = {"message": failure.message}
        name = failure.type or "modelStreamErrorException"
        if name == "modelStreamErrorException":
            body |= {"originalStatusCode": failure.status, "originalMessage": failure.message}
        return frames.exception(name, json.dumps(body).encode())

    def ping(self) -> bytes:
        return self._frame({"type": "ping"})

    def spoilt(self, data: bytes, *, structural: bool) -> bytes:
        """`structural`: a good event in a message whose checksum is wrong."""
        if structural:
            return frames.spoilt_crc(frames.chunk(b'{"type": "ping"}'))
        return frames.chunk(data)

    def _frame(self, data: dict[str, object]) -> bytes:
        return frames.chunk(json.dumps(data).encode())

    def _events(self, answer: Answer, request: Request) -> list[tuple[StepKind, dict[str, object]]]:
        *out, (kind, last) = super()._events(answer, request)
        if answer.usage:
            last["amazon-bedrock-invocationMetrics"] = {
                "inputTokenCount": answer.usage.input, "outputTokenCount": answer.usage.output,
                "invocationLatency": 5, "firstByteLatency": 2,
            }  # fmt: skip
        return [*out, (kind, last)]


def _stop(answer: Answer) -> str:
    return answer.stop or ("tool_use" if answer.calls else "end_turn")


def _anthropic(failure: Failure) -> dict[str, object]:
    kind = failure.type or ANTHROPIC_TYPES.get(failure.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": failure.message}}


def _blocks(answer: Answer) -> list[tuple[dict[str, object], list[dict[str, object]]]]:
    """The shell and the deltas of each content block."""
    out: list[tuple[dict[str, object], list[dict[str, object]]]] = []
    if answer.thinking:
        shell: dict[str, object] = {"type": "thinking", "thinking": "", "signature": ""}
        deltas: list[dict[str, object]] = [
            {"type": "thinking_delta", "thinking": piece} for piece in answer.thinking
        ]
        out.append((shell, [*deltas, {"type": "signature_delta", "signature": "c2ln"}]))
    if answer.pieces:
        deltas = [{"type": "text_delta", "text": piece} for piece in answer.pieces]
        out.append(({"type": "text", "text": ""}, deltas))
    for call in answer.calls:
        deltas = [{"type": "input_json_delta", "partial_json": p} for p in call.fragments]
        shell = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        out.append((shell, deltas))
    return out

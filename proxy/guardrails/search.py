"""One rule over one text: what it finds, left to right, without overlap (guardrails.md §4.2).

Theory.  A call of RE2 costs as much as reading half a KB, so what keeps a search fast in a text
made to hurt is to call it seldom: only where a match's first characters stand, or words that it
needs, and never for rules of kind `unicode`, whose finds may be every character of a text.
"""

from collections.abc import Sequence
from typing import Final

from proxy.guardrails.checks.unicode import Belongs
from proxy.guardrails.context import windows
from proxy.guardrails.linear import Bounds
from proxy.guardrails.redact import Hit
from proxy.guardrails.rules import LiveRule, Pattern
from proxy.guardrails.view import Face, View

_NOTHING: Final[Sequence[Bounds]] = ((-1, -1),)
ASCII: Final = 127
MOST_BYTES: Final = 4  # of a character in UTF-8
SAME: Final = 256  # different texts whose check is remembered for the length of a search


def search(rule: LiveRule, view: View, begin: int, stop: int, refused: bool) -> list[Hit]:
    """The hits that begin in `begin`..`stop`, in characters of the original; with `refused` also
    those that a check refused and the search jumped over."""
    if rule.pattern.signs is not None and rule.weighs_nothing:
        return _signs(rule, view.text, begin, stop, refused)
    face = view.face(rule.pattern.folding)
    pattern, data, group, retry = rule.pattern, face.data, rule.group, rule.retry
    at = face.begin(begin)
    hits: list[Hit] = []
    places = _places(rule, view, face)
    place = 0
    room = MOST_BYTES * (pattern.max_width or 0) + 1  # what begins at a place ends before
    limit = len(data) if stop >= len(view.text) else 0  # all that begins before counts
    known: dict[str, tuple[int, int] | None] = {}
    heads = pattern.heads
    while True:
        if places is not None:  # a find elsewhere is refused, and tried again one character later
            while place < len(places) and places[place][1] < at:
                place += 1
            if place == len(places):
                break
            at = max(at, places[place][0])
        end = places[place][1] + room if places is not None else len(data)
        found = (
            pattern.regex.spans_within(data, at, end)
            if heads is None
            else _next(pattern, data, at, end)
        )
        whole = found[0]
        low = whole[0]
        if low < 0:
            if places is None:
                break
            place += 1
            continue
        if places is not None and low > places[place][1]:
            place += 1  # it may have been cut short: it is found again where it counts
            continue
        if low >= limit and face.source(face.char(low)) >= stop:
            break
        if retry and _is_refused(rule, face, whole, found[group], known):
            at = face.after(low)
            continue
        hit = _hit(rule, view, face, whole, found[group], known)
        at = whole[1] if hit.valid or not retry else face.after(low)
        if hit.valid or (refused and not retry):
            hits.append(_mapped(hit, face))
    return hits


def _next(pattern: Pattern, data: bytes, at: int, end: int) -> Sequence[Bounds]:
    """The leftmost match between `at` and `end`, where its first characters are known."""
    heads = pattern.heads
    assert heads is not None
    stem, words, regex = heads.stem, heads.words, pattern.regex
    several = len(words) > 1
    at = data.find(stem, at, end)
    while at >= 0:
        if not several or data.startswith(words, at):
            found = regex.spans_here(data, at)
            if found[0][0] >= 0:
                return found
        at = data.find(stem, at + 1, end)
    return _NOTHING


def _places(rule: LiveRule, view: View, face: Face) -> list[tuple[int, int]] | None:
    """Where a match may begin that counts, in bytes; None: anywhere."""
    context = rule.context
    if context is None or not (rule.needs_context and rule.retry) or face is not view.raw:
        return None
    if context.present("", 0, view.names):
        return None
    return windows(context.words, view, rule.pattern.max_width or 0)


def found_at(rule: LiveRule, view: View, face: Face, whole: Bounds, span: Bounds) -> Hit:
    """What one match means, in characters of the face."""
    return _hit(rule, view, face, whole, span, {})


def _hit(
    rule: LiveRule,
    view: View,
    face: Face,
    whole: Bounds,
    span: Bounds,
    known: dict[str, tuple[int, int] | None],
) -> Hit:
    """What a match means, in characters of the face: the check may refuse it or narrow its span."""
    first, last = face.char(whole[0]), face.char(whole[1])
    start, end = first, last
    if span[0] < span[1] and span != whole:  # a group that took no part: the whole match counts
        start, end = face.char(span[0]), face.char(span[1])
    valid, confidence = True, rule.confidence
    if rule.check is not None:
        part = _checked(rule, face.text[start:end], known)
        if part is None:
            return Hit(rule, first, last, start, end, False, confidence)
        start, end = start + part[0], start + part[1]
    if rule.belongs is not None and rule.belongs(face.text, start, end):
        valid = False
    elif rule.context is not None:
        if rule.context.present(view.text, face.source(start), view.names):
            confidence = min(1.0, confidence + rule.context.boost)
            valid = confidence >= rule.threshold
        else:
            valid = not rule.context.required and confidence >= rule.threshold
    return Hit(rule, first, last, start, end, valid, confidence)


def _is_refused(
    rule: LiveRule,
    face: Face,
    whole: Bounds,
    span: Bounds,
    known: dict[str, tuple[int, int] | None],
) -> bool:
    """The check refuses the match, and that shows without a count of the characters before it."""
    start, end = span if span[0] < span[1] else whole
    if face.plain:
        return _checked(rule, face.text[start:end], known) is None
    piece = face.data[start:end]
    if not piece.isascii() or b"?" in piece:  # which may stand for half a surrogate pair
        return False
    return _checked(rule, piece.decode(), known) is None


def _checked(
    rule: LiveRule, text: str, known: dict[str, tuple[int, int] | None]
) -> tuple[int, int] | None:
    """What the check says of a span."""
    if text in known:
        return known[text]
    assert rule.check is not None
    part = rule.check(text)
    if len(known) < SAME:
        known[text] = part
    return part


def _mapped(hit: Hit, face: Face) -> Hit:
    """From characters of a folded face to those of the original."""
    if hit.rule.pattern.folding is None:
        return hit
    hit.first, hit.last = face.source(hit.first), face.source(hit.last - 1) + 1
    hit.start, hit.end = face.source(hit.start), face.source(hit.end - 1) + 1
    return hit


# ---- characters of a class


def _signs(rule: LiveRule, text: str, begin: int, stop: int, refused: bool) -> list[Hit]:
    """The same for a rule of kind `unicode`: all finds as one hit, unless each is asked for."""
    signs, belongs = rule.pattern.signs, rule.belongs
    assert signs is not None
    alone = signs.alone
    staying: list[Hit] = []
    spans = signs.runs(text, begin, stop)
    if alone and spans and spans[-1] > stop:
        spans[-1] = stop
    if belongs is not None:
        staying = _leave(rule, belongs, text, spans, refused)
    if not spans:
        return staying
    hit = Hit(rule, spans[0], spans[-1], spans[0], spans[1], True, rule.confidence)
    hit.end = spans[0] + 1 if alone else spans[1]
    count = len(spans) // 2 if not alone else sum(spans[1::2]) - sum(spans[::2])
    hit.spans, hit.count = spans, count
    if refused or rule.exempts:
        return staying + hit.apart()
    return [hit] if count > 1 else hit.apart()


def _leave(
    rule: LiveRule, belongs: Belongs, text: str, spans: list[int], refused: bool
) -> list[Hit]:
    """Take out of the spans what is as it must be; with `refused`, the runs of it."""
    signs = rule.pattern.signs
    assert signs is not None
    alone = signs.alone
    staying: list[Hit] = []
    known: dict[str, bool] = {}
    kept = 0
    for at in range(0, len(spans), 2):
        start, end = spans[at], spans[at + 1]
        # see `CharacterClass` for what may belong: of characters side by side only the first
        if start == 0 or ord(text[start - 1]) > ASCII:
            if not alone:
                if belongs(text, start, end):
                    if refused:
                        staying.append(Hit(rule, start, end, start, end, False, rule.confidence))
                    continue
            elif _belongs(belongs, text, start, known):
                start += 1
                if start == end:
                    continue
        if kept < at or start > spans[at]:
            spans[kept], spans[kept + 1] = start, end
        kept += 2
    del spans[kept:]
    return staying


def _belongs(belongs: Belongs, text: str, start: int, known: dict[str, bool]) -> bool:
    """It looks at one character on either side, so it says the same where they are the same."""
    if start == 0:
        return belongs(text, start, start + 1)
    around = text[start - 1 : start + 2]
    found = known.get(around)
    if found is None:
        found = belongs(text, start, start + 1)
        if len(known) < SAME:
            known[around] = found
    return found

"""The exact stream guard: what may leave of a text that is still being written.

Law.  What a lane emits, joined, equals the whole-text rewriting, however the text was chopped; what
has left at any moment is a prefix of it; a block falls on the same rule and leaves the same prefix.
Only exception: a candidate still undecided after `hold_max` characters.  There the lane is stricter
(or, with `release`, says `bypassed`), and the same for every chopping.

Theory (guardrails.md §9.4).  A *sync point* is a position that no match crosses, so matching
segment by segment equals matching the whole.  The automaton names them while it runs; text up to
the last one leaves, unsearched unless a rule may have ended in it.  Where something stays live for
long, every `grid` characters of the *lane* (never of the chunk) RE2 is asked for the oldest open
match: text before it leaves (*soft sync*); a match that is certain, though not ended, is settled at
once (*commit*); one that stays undecided too long is taken as a match (*overflow*).
"""

from collections.abc import Sequence
from typing import Final, Literal

from proxy.guardrails.automaton import ENDED
from proxy.guardrails.findings import Finding, sentence
from proxy.guardrails.lanestate import LaneState
from proxy.guardrails.matching import Breaks
from proxy.guardrails.redact import Hit, rewrite, without_exempted
from proxy.guardrails.surrogates import UNPAIRED, mended
from proxy.guardrails.view import View

TAIL: Final = 512  # characters of left context at which it is cut to what is needed


class Lane(LaneState):
    """One growing string of an answer: feed() what comes, emit what it returns, finish() once.

    After a block nothing more comes out; `blocked` and `message` say why.
    """

    __slots__ = ()

    def feed(self, text: str) -> str:
        """Take the next piece; return what may leave now."""
        if self._plain and text and text.isascii():
            return self._glide(text)
        return self._feed(text)

    def _glide(self, text: str) -> str:
        """From the plain state, nothing folded: most pieces, in which no rule ends, and short."""
        held = self._held
        if len(held) + len(text) >= self._grid:
            return self._hard(text)
        auto, row, kept = self._auto, self._row, -1
        for cls in auto.classify(text):
            row = row.next[cls] or auto.step(row, cls)
            flag = row.flag
            if flag:
                if flag & ENDED:
                    return self._hard(text)
                kept = 0
            elif kept >= 0:
                kept += 1
        self._row = row
        self._pos += len(text)
        if kept < 0:
            self._held = held + text
            return ""
        if kept:
            self._held = text[-kept:]
            text = text[:-kept]
        else:
            self._held = ""
        if held:
            text = held + text
        tail = self._tail + text
        self._tail = tail if len(tail) < TAIL else tail[-self._kept :]
        return text

    def finish(self) -> str:
        """The text is whole: settle everything, `$` true."""
        self._left_plain()
        if self._carry:
            self._carry = ""
            self._general(UNPAIRED)
        if self.blocked is None:
            self._done |= self._open
            self._release(self._pos, final=True)
        self._plain = False
        return self._taken()

    def _feed(self, text: str) -> str:
        if self.blocked is not None or not text:
            return ""
        if self._carry or not text.isascii():
            text = self._mended(text)
            if not text:
                return ""
            if self._plain and not self._folds:
                return self._glide(text)
        return self._hard(text)

    def _hard(self, text: str) -> str:
        self._left_plain()
        self._general(text)
        return self._taken()

    def _mended(self, text: str) -> str:
        """Surrogate halves joined; a lone one at the end waits for its other half."""
        text, self._carry = mended(self._carry + text)
        if self._carry:
            self._left_plain()
        return text

    def _left_plain(self) -> None:
        """Leave the plain state, in which the sync point is where the hold begins."""
        if self._plain:
            self._sync = self._pos - len(self._held)
            self._plain = False

    def _general(self, text: str) -> None:
        """Any state, any text: run, look at the grid, release what is settled."""
        codes = self._auto.classify(text)
        done, size, grid = 0, len(text), self._grid
        while done < size and self.blocked is None:
            used = self._scan(codes[done : done + grid - self._pos % grid])
            self._held += text[done : done + used]
            done += used
            if self._mode != "hold":
                self._skip()
            if self._pos % grid == 0:
                self._checkpoint()
            if self._sync - self._base > 16 * grid:
                self._release(self._sync)  # a large chunk: keep the hold short
        self._release(self._sync)
        self._plain = (
            not (self._done or self._open or self._out_of_order)
            and self._committed is None
            and self.blocked is None
        )

    @property
    def _out_of_order(self) -> bool:
        waits = bool(self._carry) or self._pending > self._sync
        return self._mode != "hold" or waits or (self._folds and not self._held.isascii())

    @property
    def _base(self) -> int:
        return self._pos - len(self._held)

    def _scan(self, codes: Sequence[int]) -> int:
        """Run the automaton.  Moves the sync point to the last position where nothing is live and
        nothing waits for its right context; while skipping, stops there."""
        auto, row, pos, sync = self._auto, self._row, self._pos, self._sync
        done, hits, pending = self._done, self._open, self._pending
        skipping = self._mode != "hold"
        for cls in codes:
            row = row.next[cls] or auto.step(row, cls)
            pos += 1
            flag = row.flag
            if flag:
                if flag & ENDED:
                    hits |= row.ended
                    if flag != ENDED:
                        pending = pos  # a sync point once the next character is known
                else:
                    sync = pos
                    if hits:
                        done, hits = done | hits, 0
                    if skipping:
                        break
        if sync < pending < pos and not skipping:
            sync = pending
            done |= hits  # may name too many rules; that only costs a search
        used = pos - self._pos
        self._row, self._pos, self._sync = row, pos, sync
        self._done, self._open, self._pending = done, hits, pending
        return used

    # ---- the grid

    def _checkpoint(self) -> None:
        """At positions that depend on the text alone, so that no decision hangs on the chunks."""
        hold, grid = self._pos - self._sync, self._grid
        if hold < grid or self._mode != "hold":
            return
        long = self._committed is not None or hold > self._limits.hold_max
        if long and hold // grid & (hold // grid - 1):
            return  # may be long: looked at after 1, 2, 4, 8 … steps only
        self._release(self._sync)
        if self.blocked is None and self._soft_sync():
            self._release(self._sync)
        hold = self._pos - self._sync
        if self.blocked is not None or hold < grid:
            return
        if self._committed is not None:
            if hold >= self._limits.swallow_max:
                self.overflows.append((self._committed.pack.policy_id, self._committed.rule_id))
                self._committed = None
                self._skip_from_here("swallow")
            return
        view, begin = self._view()
        live = self._rules.open_at(view, begin, self._row.open)
        undecided = self._commit(view, begin, live)
        if undecided is None:
            return
        if hold >= self._limits.swallow_max:
            undecided = live  # however sure: so much is not held
        if undecided and hold >= self._limits.hold_max:
            self._overflow(undecided)

    def _soft_sync(self) -> bool:
        """Cut where the oldest open match begins, but never inside a match that has ended."""
        view, begin = self._view()
        cut = self._rules.oldest_open(view, begin, self._row.open)
        mask = self._done | self._open
        if cut > begin and mask:
            breaks: Breaks = []
            hits = self._rules.find(view, mask, begin, len(view.text), breaks, refused=True)
            if self._broke(breaks):
                return False
            for hit in sorted(hits, key=lambda hit: hit.first, reverse=True):
                if hit.first < cut < hit.last:
                    cut = hit.first
        if cut <= begin:
            return False
        self._sync = self._base + cut - begin
        self._done |= self._open
        self._auto.soft_syncs += 1
        return True

    def _commit(self, view: View, begin: int, live: int) -> int | None:
        """Settle a match that begins at the sync point and is certain, only its end is not: None.
        Else the rules of `live` that may yet decide either way."""
        if self._rules.exempts:
            return live
        for index, rule in enumerate(self._rules.rules):
            if not (live | self._open) >> index & 1:
                continue
            going_on = bool(live >> index & 1)
            if rule.never_early or (going_on and not rule.may_settle):
                return live  # something at least as strong is still undecided
            breaks: Breaks = []
            hit = self._rules.match_at(rule, view, begin, breaks)
            if self._broke(breaks):
                return None
            if going_on and (hit is None or not rule.settles(view.text[begin : hit.last])):
                return live
            live &= ~(1 << index)
            if hit is None or not hit.valid or hit.start != begin:
                continue  # settled: no span of this rule begins here
            self._auto.commits += 1
            if rule.action == "block":
                self._block(self._findings.hit(hit, self._part, self._base - begin))
            else:
                self._committed = rule
                self._out.append(rule.replacement)
            return None
        return live

    def _overflow(self, live: int) -> None:
        """Too long and undecided: the strongest such rule counts as matched."""
        rule = self._rules.rules[(live & -live).bit_length() - 1]
        release = self._limits.overflow == "release"
        self.overflows.append((rule.pack.policy_id, rule.rule_id))
        if release:
            self._findings.passed_unseen(rule, self._part, self._base, self._pos)
            self._done |= self._open
            self._release(self._pos)
        else:
            size = len(self._held)
            whole = Hit(rule, 0, size, 0, size, True, rule.confidence)
            finding = self._findings.hit(whole, self._part, self._base)
            if rule.action == "block":
                self._block(finding)
            else:
                self._out.append(rule.replacement)
        self._skip_from_here("pass" if release else "swallow")

    def _skip_from_here(self, mode: Literal["swallow", "pass"]) -> None:
        """Look at nothing until nothing at all is live."""
        self._mode = mode
        self._done = self._open = 0
        self._drop(len(self._held))

    def _skip(self) -> None:
        """The character after which nothing is live was no part of a match: it stays."""
        settled = self._sync == self._pos
        gone = len(self._held) - settled
        if self._mode == "pass":
            self._out.append(self._held[:gone])
        self._drop(gone)
        self._done = self._open = 0
        if settled:
            self._mode = "hold"

    # ---- releasing

    def _release(self, upto: int, *, final: bool = False) -> None:
        """Match and rewrite the segment that ends at a sync point; without a hit no regex runs."""
        count = upto - self._base
        if (count <= 0 and not final) or self.blocked is not None or self._mode != "hold":
            return
        text = self._rewritten(count) if self._done else self._held[:count]
        self._done = 0
        if text is None:
            return  # a check broke
        if self._committed is not None:
            assert text.startswith(self._committed.replacement), "an early commit was wrong"
            text = text[len(self._committed.replacement) :]
        self._committed = None
        self._out.append(text)
        self._drop(count)

    def _rewritten(self, count: int) -> str | None:
        """The segment as it may leave, up to a block; None when a check broke."""
        view, begin = self._view()
        breaks: Breaks = []
        hits = self._rules.find(view, self._done, begin, begin + count, breaks)
        if self._broke(breaks):
            return None
        hits = without_exempted(hits)
        if not hits:
            return self._held[:count]
        if self._score is not None:
            self._score.count(hits)
        base = self._base - begin
        findings = [(hit, self._findings.hit(hit, self._part, base)) for hit in hits]
        text, block = rewrite(view.text[: begin + count], hits)
        if block is not None:
            self._block(next(finding for hit, finding in findings if hit is block))
        return text[begin:]

    def _view(self) -> tuple[View, int]:
        """The held text with what stands left of it, and where it begins there."""
        left = self._rules.left(self._tail)
        return View(left + self._held), len(left)

    def _drop(self, count: int) -> None:
        gone, self._held = self._held[:count], self._held[count:]
        if gone:
            self._tail = self._rules.left(self._tail + gone)

    def _broke(self, breaks: Breaks) -> bool:
        """Record checks that broke; True when one of them ends the lane."""
        finding = self._findings.broken(breaks, self._part) if breaks else None
        if finding is None:
            return False
        self._block(finding)
        return True

    def _block(self, finding: Finding) -> None:
        self.blocked = self._findings.result(finding)
        self.message = sentence(finding, "response")
        self._plain = False

    def _taken(self) -> str:
        text = "".join(self._out)
        self._out.clear()
        return text

    def __repr__(self) -> str:
        return f"<Lane {self._part} {self.held} held{', blocked' if self.blocked else ''}>"

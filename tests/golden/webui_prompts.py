"""The web UI's prompt rules in plain Python and numpy: weights, BREAK, chunks of 75 tokens, emphasis.

Facts from modules/prompt_parser.py, sd_hijack_clip.py and sd_emphasis.py of web UI 1.10 (emphasis
"Original", comma backtrack 20, cond and uncond padded to the same length); written from the rules.
"""

import re

import numpy as np
import torch

CHUNK, BACKTRACK, ROUND, SQUARE = 75, 20, 1.1, 1 / 1.1
PIECES = re.compile(
    r"(?P<escape>\\[()\[\]\\]?)|(?P<open>[(\[])|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|(?P<close>[)\]])"
    r"|(?P<text>[^\\()\[\]:]+|:)")
BREAK = re.compile(r"\s*\bBREAK\b\s*")


def raw_pieces(prompt):
    """[[text, weight], ...] before neighbours of equal weight are joined."""
    result, opened = [], {"(": [], "[": []}

    def scale(start, factor):
        for piece in result[start:]:
            piece[1] *= factor

    for match in PIECES.finditer(prompt):
        kind, text = match.lastgroup, match.group(0)
        if kind == "escape":
            result.append([text[1:], 1.0])
        elif kind == "open":
            opened[text].append(len(result))
        elif kind == "weight" and opened["("]:
            scale(opened["("].pop(), float(match["weight"]))
        elif text == ")" and opened["("]:
            scale(opened["("].pop(), ROUND)
        elif text == "]" and opened["["]:
            scale(opened["["].pop(), SQUARE)
        else:
            for index, part in enumerate(BREAK.split(text)):
                result += [["BREAK", -1.0]] if index else []
                result.append([part, 1.0])
    for start in opened["("]:
        scale(start, ROUND)
    for start in opened["["]:
        scale(start, SQUARE)
    return result or [["", 1.0]]


def parse(prompt):
    """[[text, weight], ...]; a BREAK that still counts is ["BREAK", -1.0]."""
    joined = []
    for text, weight in raw_pieces(prompt):
        if joined and joined[-1][1] == weight:
            joined[-1][0] += text
        else:
            joined.append([text, weight])
    return joined


class Chunker:
    """Collects [token, weight] pairs into chunks of 75."""

    def __init__(self, comma):
        self.comma, self.done, self.now, self.last_comma = comma, [], [], None

    def finish(self, carried=()):
        """Close the present chunk; CARRIED begins the next."""
        self.done.append(self.now)
        self.now, self.last_comma = list(carried), None

    def add(self, token, weight):
        """A full chunk is closed at its last comma where that is near enough, else where it is."""
        if token == self.comma:
            self.last_comma = len(self.now)
        elif len(self.now) == CHUNK and self.last_comma is not None \
                and CHUNK - self.last_comma <= BACKTRACK:
            keep, carried = self.now[:self.last_comma + 1], self.now[self.last_comma + 1:]
            self.now = keep
            self.finish(carried)
        if len(self.now) == CHUNK:
            self.finish()
        self.now.append([token, weight])


def chunks(tokenizer, prompt):
    """(ids, weights), both [n,77]: each chunk with its own start token, filled up with end tokens."""
    pieces = parse(prompt)
    comma = tokenizer.get_vocab().get(",</w>")
    chunker = Chunker(comma)
    for text, weight in pieces:
        if text == "BREAK" and weight == -1.0:
            chunker.finish()
            continue
        for token in tokenizer(text, add_special_tokens=False, truncation=False).input_ids:
            chunker.add(token, weight)
    if chunker.now or not chunker.done:
        chunker.finish()
    ids = np.full((len(chunker.done), CHUNK + 2), tokenizer.eos_token_id, np.int32)
    weights = np.ones((len(chunker.done), CHUNK + 2), np.float64)
    ids[:, 0] = tokenizer.bos_token_id
    for row, chunk in enumerate(chunker.done):
        for column, (token, weight) in enumerate(chunk):
            ids[row, column + 1], weights[row, column + 1] = token, weight
    return ids, weights


def pad(tokenizer, ids, weights, count):
    """COUNT chunks: those missing are those of an empty prompt."""
    empty, ones = chunks(tokenizer, "")
    missing = count - len(ids)
    return (np.concatenate([ids] + [empty] * missing), np.concatenate([weights] + [ones] * missing))


def hidden_states(model, ids, clip_skip):
    """hidden_states[-clip_skip] after the final layer norm, [n,77,hidden]."""
    found = model.text_encoder(torch.from_numpy(ids).long(), output_hidden_states=True)
    text_model = getattr(model.text_encoder, "text_model", model.text_encoder)
    return text_model.final_layer_norm(found.hidden_states[-clip_skip])


def emphasise(states, weights):
    """Each chunk times its weights, then scaled so that its mean is what it was."""
    weighted = states * torch.from_numpy(weights).to(states.dtype)[:, :, None]
    old, new = states.mean(dim=(1, 2), keepdim=True), weighted.mean(dim=(1, 2), keepdim=True)
    return weighted * (old / new)


def condition(model, prompts, clip_skip=1):
    """[len(prompts), chunks*77, hidden], all prompts padded to the longest."""
    made = [chunks(model.tokenizer, prompt) for prompt in prompts]
    count = max(len(ids) for ids, _ in made)
    rows = []
    for ids, weights in made:
        ids, weights = pad(model.tokenizer, ids, weights, count)
        states = emphasise(hidden_states(model, ids, clip_skip), weights)
        rows.append(states.reshape(1, -1, states.shape[-1]))
    return torch.cat(rows)

"""BERT-attack one caption, one word and one candidate at a time: the reference of the batched one."""

from __future__ import annotations

import itertools
import string

import torch
import torch.nn.functional as F
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hf_hierrobust.attacks.text.sentence import STOP_WORDS


def slow_embed(encoder, text):
    batch = encoder.tokenizer([text], padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        return F.normalize(encoder.module.eval().get_text_features(**batch).pooler_output[0].double(), dim=0)


def slow_kl(a, b):
    return float(F.kl_div(b.log_softmax(0), a.log_softmax(0), log_target=True, reduction="sum"))


def slow_attack(text, encoder, mlm_dir, k, num_words=1, quirks=False):
    """Returns (text, KL), following MMCoA and, without quirks, OC-18."""
    tokenizer, mlm = AutoTokenizer.from_pretrained(mlm_dir), AutoModelForMaskedLM.from_pretrained(mlm_dir)
    words, spans, pieces = text.split(" "), [], []
    for word in words:
        core = word.rstrip(string.punctuation)
        spans.append((len(pieces), len(pieces) + len(tokenizer.tokenize(word if quirks else core))))
        pieces += tokenizer.tokenize(word)
    ids = tokenizer.convert_tokens_to_ids(["[CLS]", *pieces, "[SEP]"])
    with torch.no_grad():
        logits = mlm.eval()(torch.tensor([ids])).logits[0]
    values, tops = logits.topk(k)
    anchor = slow_embed(encoder, text)

    def kl_of(parts):
        return slow_kl(anchor, slow_embed(encoder, " ".join(parts)))

    def core_and_tail(word):
        core = word if quirks else word.rstrip(string.punctuation)
        return core, word[len(core) :]

    importance = [
        kl_of([*words[:i], "[UNK]" + core_and_tail(words[i])[1], *words[i + 1 :]]) for i in range(len(words))
    ]
    final, changes, reached = list(words), 0, 0.0
    for i in sorted(range(len(words)), key=lambda i: -importance[i]):
        core, tail = core_and_tail(words[i])
        if changes == num_words or core in STOP_WORDS:
            continue
        first, last = spans[i] if quirks else (spans[i][0] + 1, spans[i][1] + 1)
        rows, scores = tops[first:last].tolist(), values[first:last].tolist()
        if len(rows) == 1:
            options = [[t] for t, s in zip(rows[0], scores[0]) if not quirks or s >= 0.3]
        else:
            options = list(itertools.product(*[row[:4] for row in rows[:12]]))[:24]
        candidates = [core]
        for option in options:
            tokens = tokenizer.convert_ids_to_tokens(list(option))
            joined = " ".join(tokens).replace(" ##", "")
            if quirks:
                joined = tokenizer.convert_tokens_to_string(tokens)
            elif not joined.isalnum() or any(t in tokenizer.all_special_tokens for t in tokens):
                continue
            same = joined == core if quirks else joined.lower() == core.lower()
            if same or "##" in joined or joined in STOP_WORDS:
                continue
            candidates.append(joined)
        kls = [kl_of([*final[:i], c + tail, *final[i + 1 :]]) for c in candidates]
        best = max(range(len(kls)), key=kls.__getitem__)
        if best:
            final[i], reached, changes = candidates[best] + tail, kls[best], changes + 1
    return " ".join(final), reached

"""Captions as numbers: byte-pair encoding, trained on them (Sennrich, Haddow & Birch 2016, arXiv 1508.07909)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..errors import SettingError

PAD, BOS, EOS, UNKNOWN = 0, 1, 2, 3  # the first rows of every vocabulary
SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")
SPACE = "▁"  # stands for the space before a word


class Tokenizer:
    """Byte-pair encoding in lower case, with `[BOS]` before and `[EOS]` after a caption and `[PAD]` after that.

    `Tokenizer.train(captions, size)` learns at most `size` tokens; `tokenizer(captions)` gives int64 (B, T) with T the
    `length` of the tokenizer: longer captions are cut, and still end in `[EOS]`. What the training captions never
    contained becomes `[UNK]`. `len` is the size of the vocabulary.
    """

    def __init__(self, text: str, length: int = 32):
        from tokenizers import Tokenizer as Fast

        if length < 3:
            raise SettingError(f"length is {length}; a caption takes [BOS], [EOS] and at least one token between.")
        self.length, self._fast = length, Fast.from_str(text)

    @classmethod
    def train(cls, captions: Iterable[str], size: int = 2_000, length: int = 32) -> Tokenizer:
        """Learn the merges from captions: the most frequent pair of neighbours becomes a token, again and again, until
        there are `size` tokens or no pair occurs twice. The same captions give the same tokenizer."""
        from tokenizers import Tokenizer as Fast
        from tokenizers import models, normalizers, pre_tokenizers, trainers

        fast = Fast(models.BPE(unk_token=SPECIAL[UNKNOWN]))
        fast.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        # The space before a word becomes a sign of it. CLIP marks the end of a word instead; with the trainer at hand
        # that would number the tokens in another order each time.
        fast.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(SPACE), pre_tokenizers.Punctuation()])
        trainer = trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, special_tokens=list(SPECIAL), show_progress=False
        )
        fast.train_from_iterator(captions, trainer)
        return cls(fast.to_str(), length)

    def __len__(self) -> int:
        return self._fast.get_vocab_size()

    def __call__(self, captions: list[str]) -> Tensor:
        """Captions (B) -> tokens (B, T) int64. Raises SettingError for a single string."""
        if isinstance(captions, str):
            raise SettingError(f"A tokenizer takes a list of captions; write tokenizer([{captions!r}]).")
        rows = torch.full((len(captions), self.length), PAD)
        for row, found in zip(rows, self._fast.encode_batch(list(captions), add_special_tokens=False), strict=True):
            ids = [BOS, *found.ids[: self.length - 2], EOS]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def tokens(self, caption: str) -> list[str]:
        """The pieces that a caption is cut into, as text; one that begins a word begins with ▁."""
        return self._fast.encode(caption, add_special_tokens=False).tokens

    def decode(self, row: Iterable[int]) -> str:
        """Tokens (T) back to text, without the special ones."""
        pieces = [self._fast.id_to_token(int(token)) for token in row if int(token) > UNKNOWN]
        return "".join(pieces).replace(SPACE, " ").strip()

    def text(self) -> str:
        """Everything there is to know about this tokenizer, as JSON text for `Tokenizer(text, length)`."""
        return self._fast.to_str()

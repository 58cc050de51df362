"""WordPiece tokenizer of the small text encoder, made from the words of the captions."""

from collections.abc import Iterable

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertTokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# code points of the alphabets whose letters are known one by one: Latin with its signs
# such as degree and micro, Greek, Cyrillic, and the dashes, quotes and comparisons
ALPHABETS = ((0x21, 0x180), (0x370, 0x460), (0x2010, 0x2040), (0x2248, 0x2266))


def build_tokenizer(words: Iterable[str], max_tokens: int) -> BertTokenizer:
    """A lower-case WordPiece tokenizer that keeps `words` whole.

    Any other word falls apart into characters, so that words nobody foresaw still differ.
    Only words in letters outside `ALPHABETS` are unknown.

    Args:
        words: what captions say; split at punctuation as BERT does, so `ill-defined` is
            kept as `ill`, `-` and `defined`.
        max_tokens: longest sequence, [CLS] and [SEP] counted; the rest is cut off.

    Raises:
        ValueError: if `max_tokens` leaves no room for a word.
    """
    if max_tokens <= 2:  # noqa: PLR2004 - [CLS] and [SEP]
        raise ValueError(f"max_tokens must be above 2, got {max_tokens}")
    clean, cut = BertNormalizer(lowercase=True), BertPreTokenizer()
    pieces = {
        piece
        for word in words
        for piece, _ in cut.pre_tokenize_str(clean.normalize_str(word))
    }
    marks = {
        mark
        for first, end in ALPHABETS
        for mark in clean.normalize_str("".join(map(chr, range(first, end))))
        if not mark.isspace()
    }
    vocabulary = [
        *SPECIAL,
        *sorted(marks),
        *(f"##{mark}" for mark in sorted(marks)),
        *sorted(pieces - marks),
    ]
    return BertTokenizer(
        vocab={token: place for place, token in enumerate(vocabulary)},
        do_lower_case=True,
        model_max_length=max_tokens,
    )

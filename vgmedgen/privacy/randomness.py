"""Randomness that nobody can guess: the noise, and who joins a step.

Privacy needs both to be secret. torch's CPU generator is no secret: it keeps only the
low 32 bits of its seed (seeds s and s + 2**32 give the same numbers), so noise drawn
from it falls to whoever tries all seeds. Here each call reads a new key from the
operating system, stretches it with ChaCha20 and forgets it. Nothing is kept that could
be read, copied into a fork or seeded by hand.
"""

import math
import os
from collections.abc import Sequence

import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from torch import Tensor

from vgmedgen.privacy.recording import recorder

KEY_BYTES = 32
NONCE_BYTES = 16  # ChaCha20's block counter included
MANTISSA = 52  # bits of a double
ONE = 1023 << MANTISSA  # the bits of 1.0: with a random mantissa, a number in [1, 2)
HALF_A_UNIT = 2.0 ** -(MANTISSA + 1)  # with it added, no draw is 0 or rounds to 1
TERMS = 4  # normal draws behind each value that is given out
CHUNK = 2**14  # values drawn at a time: a bound on memory, and it stays in the cache


class Secret:
    """A source of secret randomness on the CPU; holds no state at all."""

    __slots__ = ()

    def uniform(self, count: int) -> Tensor:
        """Independent draws from (0, 1), both ends excluded: (count,) float64."""
        if count == 0:
            return torch.empty(0, dtype=torch.float64)
        seed = os.urandom(KEY_BYTES + NONCE_BYTES)
        cipher = Cipher(ChaCha20(seed[:KEY_BYTES], seed[KEY_BYTES:]), mode=None)
        stream = bytearray(8 * count)
        cipher.encryptor().update_into(stream, stream)
        bits = torch.frombuffer(stream, dtype=torch.int64)
        bits &= 2**MANTISSA - 1
        bits |= ONE
        drawn: Tensor = bits.view(torch.float64).sub_(1 - HALF_A_UNIT)  # of [1, 2)
        return drawn

    def normal(self, shape: Sequence[int], std: float) -> Tensor:
        """Independent draws from N(0, std^2): `shape`, float32.

        Each is half the sum of four Box-Muller draws in double precision, rounded at
        the end. The bits of a single draw would tell the noise from the value that it
        hides (Mironov 2012); those of the sum do not in any practical time.

        Raises:
            ValueError: for a `std` that is negative, infinite or NaN.

        Source: Holohan and Braghin 2021, arXiv 2107.10138.
        """
        if not 0 <= std < math.inf:
            raise ValueError(f"standard deviation {std} is not a number from 0 up")
        drawn = torch.empty(tuple(shape))
        for part in torch.split(drawn.view(-1), CHUNK):
            part.copy_(self._standard(len(part)) * std)
        watch = recorder()
        if watch is not None:
            watch.drew(drawn)
        return drawn

    def joins(self, units: int, rate: float) -> list[int]:
        """Which of `units` join a step, each on its own with probability `rate`."""
        return (self.uniform(units) < rate).nonzero().flatten().tolist()

    def generator(self) -> torch.Generator:
        """A generator seeded by the operating system, of 32 bits.

        Good enough for what privacy does not rest on: timesteps and diffusion noise.
        """
        return torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big"))

    def _standard(self, count: int) -> Tensor:
        """(count,) standard normal, float64 (Box and Muller 1958)."""
        half = (count + 1) // 2
        radius, angle = self.uniform(2 * TERMS * half).view(2, TERMS, half)
        radius = radius.log_().mul_(-2).sqrt_()
        angle = angle.mul_(2 * math.pi)
        total = torch.cat(
            (angle.cos().mul_(radius).sum(0), angle.sin_().mul_(radius).sum(0))
        )
        return total[:count] / math.sqrt(TERMS)

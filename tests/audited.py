"""How the findings of an audit of the whole training begin, and how to look for one."""

STEPS = 24
JOINING, NOISE, REUSE = "who joins is", "the noise is there", "no noise is used twice"
CLIP, DENOMINATOR = "each unit is clipped", "the sum is divided"
SECRET, WEIGHTS, ANSWER = "the noise is the secret's", "weights move", "answers are"
COMPLETE, OTHERS = "every step is the plan's", "others' records"


def has(names: set[str], beginning: str, *trainings: str) -> bool:
    """Whether a finding is red in all these trainings."""
    return all(
        any(n.startswith(beginning) and n.endswith(f"({t})") for n in names)
        for t in trainings or ("mapper", "generate")
    )

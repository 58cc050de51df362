"""What the audit's page says in words that do not depend on what was seen."""

from vgmedgen.audit.recorded import FALSE_ALARM

WORDS = {
    "green": "Nothing speaks against the claim",
    "amber": "Not shown",
    "red": "Stop",
}
UNSEEN = {
    "Noise that somebody can predict.": "If its key follows the clock, or a machine was "
    "copied while it ran, it still looks like chance to whoever lacks the key; so does "
    "noise that its source gives out again at other places.",
    "An engine that behaves only here.": "One that notices the recording, or goes wrong on "
    "a date, on another device, or when it goes on after a crash.",
    "What is too small.": "Noise is seen to be off from about 4 % on with 15 000 values, "
    "from 0.5 % on with a million, a rate from about six standard errors on.",
    "What is settled before samples are made.": "Which images are one patient's, and a "
    "patient under two names.",
    "What is in no tensor.": "When a site answers, that it refuses, that it takes part.",
    "A wrong sum of privacy.": "The audit adds up epsilon as the ledger does; the "
    "accountant is tested against another one, not here.",
}
GLOSSARY = {
    "Epsilon": "How far one unit's presence can move the odds of anything that leaves: "
    "by a factor of at most e to the epsilon. 0 is no influence; 1 is a factor of 2.7, 3 "
    "of 20, 8 of 3 000.",
    "Unit": "What is protected whole: a patient, a lesion, or a single image.",
    "Claim and lower bound": "The claim is computed from the noise and holds against "
    "every attack. A lower bound is what one attack has shown. It must lie below the "
    "claim; far below is usual.",
    "AUC": "Chance that an attack ranks a unit that trained above one that did not. "
    "0.5 is a coin.",
    "TPR at 1 % FPR": "Share of the units that trained which are found, if 1 in 100 of "
    "the others may be accused falsely.",
    "Canary": "A made-up unit far from all data, planted in a copy of a training.",
    "Ceiling": "What an attack could prove if every one of its guesses were right. Where "
    "it lies below the claim, the attack cannot refute the claim, whatever is wrong.",
    "False alarm": "The chance that an engine without fault turns a finding red. All "
    f"questions of chance about the recorded training share {FALSE_ALARM:g}; attacks are "
    "told with 95 % confidence.",
    "Clip and noise": "Each unit's share in a step is cut to a fixed length, then noise "
    "of a fixed multiple of that length is added.",
}

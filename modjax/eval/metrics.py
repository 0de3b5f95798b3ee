"""Scores of a generated answer against the accepted ones."""

from collections.abc import Sequence

from rouge_score import rouge_scorer

_SCORER = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction is one of the answers but for white space at the ends, else 0; case counts."""
    return float(prediction.strip() in {answer.strip() for answer in answers})


def rouge_l(prediction: str, answers: Sequence[str]) -> float:
    """Rouge-L F-measure with stemming, the best over the answers, as Super-NaturalInstructions scores.

    A prediction equal to an answer scores 1 even where Rouge, which drops all but letters a-z and digits, sees
    no word at all.
    """
    if exact_match(prediction, answers):
        return 1.0
    return max(_SCORER.score(answer, prediction)["rougeL"].fmeasure for answer in answers)

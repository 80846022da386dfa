"""McNemar's test: whether two networks tested on the same samples differ by more than chance. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass

Sample = tuple[int, int]  # its position and label


@dataclass(frozen=True)
class Comparison:
    """How two networks perform on the same samples."""

    total: int  # samples
    correct: tuple[int, int]  # that each of the two predicts correctly
    only_first: int  # that only the first predicts correctly
    only_second: int

    @property
    def p_value(self) -> float:
        """The two-sided p-value of McNemar's exact test.

        Under the null hypothesis that both networks have the same error rate, `only_first` is binomial with
        `only_first` + `only_second` trials of probability 1/2 (McNemar 1947, Psychometrika 12, 153-157; the exact form
        is the sign test).

        >>> Comparison(100, (90, 95), 0, 5).p_value, Comparison(100, (90, 90), 3, 3).p_value
        (0.0625, 1.0)
        """
        from scipy.stats import binomtest  # nothing else needs it

        trials = self.only_first + self.only_second
        return float(binomtest(self.only_first, trials).pvalue) if trials else 1.0


def compare(first: Mapping[Sample, bool], second: Mapping[Sample, bool]) -> Comparison:
    """Compare which samples two networks predict correctly; if they are not the same samples, raise a ValueError."""
    if first.keys() != second.keys():
        raise ValueError("the two were not tested on the same samples")
    pairs = [(correct, second[sample]) for sample, correct in first.items()]
    return Comparison(
        total=len(pairs),
        correct=(sum(a for a, _ in pairs), sum(b for _, b in pairs)),
        only_first=pairs.count((True, False)),
        only_second=pairs.count((False, True)),
    )

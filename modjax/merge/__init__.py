"""Static merging: many experts become one, which costs as much as one LoRA and needs no router.

A merge acts either on the factors or on the updates dW_e = s_e B_e^T A_e, and the two differ. Functions that offer the
choice take it as `form`, with weights w_e:

    form="factors"    dW = (sum_e w_e s_e B_e)^T (sum_e w_e A_e)      routing's mu (arXiv 2405.11157); has cross terms
    form="roots"      dW = (sum_e r_e B_e)^T (sum_e +-r_e A_e)        with r_e = sqrt|w_e s_e| and the sign of w_e s_e;
                                                                      PEFT's "linear", "ties", "dare_*"; has cross terms
    form="products"   dW = sum_e w_e s_e B_e^T A_e                    exact; rank: the sum of the ranks, or truncated

With equal scales s, "roots" at weights w^2 is "factors" at weights w. Cross terms are products of one expert's A with
another expert's B; they are noise, because the ranks of different experts are not aligned. "products" has no cross
terms; truncating it costs an SVD.

Experts of smaller rank are padded with zeros, and the update of an expert is zero at a site that it does not have. The
merged expert has the largest of the experts' scales, so that one expert merged with weight 1 is unchanged.

`genknowsub` is not a merge: it subtracts the mean of general experts from every expert. `fold` adds experts to the
weights of the base model.
"""

from modjax.merge.fold import fold
from modjax.merge.genknowsub import genknowsub
from modjax.merge.mean import uniform, weighted
from modjax.merge.product import concatenate, svd
from modjax.merge.result import Form
from modjax.merge.sparse import dare, magnitude_prune, ties

__all__ = ["Form", "concatenate", "dare", "fold", "genknowsub", "magnitude_prune", "svd", "ties", "uniform", "weighted"]

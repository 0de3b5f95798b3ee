"""Static merging: many experts become one, as a library of one, that costs what one LoRA costs and needs no router.

A merge acts either on the factors or on the updates dW_e = s_e B_e^T A_e themselves, and the two are not the same.
Every function that leaves the choice says which by `form`, with weights w_e:

    form="factors"    dW = (sum_e w_e s_e B_e)^T (sum_e w_e A_e)      routing's mu (arXiv 2405.11157); has cross terms
    form="roots"      dW = (sum_e r_e B_e)^T (sum_e +-r_e A_e)        with r_e = sqrt|w_e s_e| and the sign of w_e s_e;
                                                                      PEFT's "linear", "ties", "dare_*"; has cross terms
    form="products"   dW = sum_e w_e s_e B_e^T A_e                    exact; rank is the sum of ranks, or cut by an SVD

With equal scales s, "roots" at weights w^2 is "factors" at weights w. Cross terms are products of one expert's A with
another's B, and with the experts' ranks unaligned they are noise: "products" has none, and costs an SVD.

Experts of smaller rank count as padded with zeros, and at a site that it lacks an expert counts as an update of zero.
The merged expert has the largest of the experts' scales, so that one expert merged with weight 1 is itself.
"""

from modjax.merge.mean import uniform, weighted
from modjax.merge.product import concatenate, svd
from modjax.merge.result import Form
from modjax.merge.sparse import dare, magnitude_prune, ties

__all__ = ["Form", "concatenate", "dare", "magnitude_prune", "svd", "ties", "uniform", "weighted"]

"""The recipe of SpineNet."""

from dataclasses import dataclass, field
from typing import Literal

from nas.recipes.controller import ControllerRecipe
from nas.recipes.one_search import ProxySearchRecipe
from nas.recipes.search import SearchRecipe, refuse_free_rungs, refuse_stages
from search_spaces.recipe import FieldError, Recipe


@dataclass(frozen=True, kw_only=True)
class SpineNetSpaceRecipe(Recipe):
    """Which scale-permuted networks are searched.

    Args:
        baseline: a published network of the family; gives the stem, what is not free, and the comparison.
        filter_size_scale: times the published widths; the baseline's own when left out, as all further ones.
        alpha: width inside resamplings.
        repeats: copies of every block.
        endpoint: channels of P3 to P7.
        activation: ``relu`` or ``swish``.
        free: the decisions that are searched; R[N]-SP[M] searches free permutation and connections.
        window: an intermediate block reads among so many blocks before it; null: any.
        dead: what becomes of a block that nothing reads: ``connect`` it, ``allow`` it, or ``limit``, which
            rejects the candidate before anything is spent.
    """

    baseline: str = "r0_sp53"
    filter_size_scale: float | None = None
    alpha: float | None = None
    repeats: int | None = None
    endpoint: int | None = None
    activation: Literal["relu", "swish"] | None = None
    free: tuple[Literal["permutation", "connections", "levels", "types"], ...] = (
        "permutation",
        "connections",
        "levels",
        "types",
    )
    window: int | None = 5
    dead: Literal["connect", "allow", "limit"] = "connect"


@dataclass(frozen=True, kw_only=True)
class AblationsRecipe(Recipe):
    """Which ablations of the paper (Du et al. 2020, section 5.5) stand beside the winner in the final table.

    Args:
        damages: the baseline with wires taken away: every block keeps only its farther parent, only its nearer one,
            or only the block before it.
        orders: fixed orders of scales whose connections are searched, under the proxy and the limits of the search.
        controller: of these searches.
    """

    damages: tuple[Literal["drop_short_range", "drop_long_range", "chain"], ...] = ()
    orders: tuple[Literal["hourglass", "fish"], ...] = ()
    controller: ControllerRecipe | None = None

    def __post_init__(self) -> None:
        self.require(
            "controller",
            (self.controller is None) == (not self.orders),
            "a controller where there are orders, whose connections it searches, and null where there are none",
        )


@dataclass(frozen=True, kw_only=True)
class SpineNetRecipe(SearchRecipe):
    """Du et al. 2020: scales are permuted and wired across, every candidate is trained for a short time.

    Args:
        space: which networks.
        search: proxy, controller, limits.
        ablations: further networks of the final table, trained ``retrain.rival_seeds`` times.
    """

    method: Literal["spinenet"] = "spinenet"
    space: SpineNetSpaceRecipe = field(default_factory=SpineNetSpaceRecipe)
    search: ProxySearchRecipe
    ablations: AblationsRecipe | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_stages(self)
        refuse_free_rungs(self, self.search.rungs)
        if self.ablations is not None and self.retrain is None:
            raise FieldError(
                "ablations", self.ablated, "they belong to the final table; add a retrain section"
            )

    @property
    def ablated(self) -> tuple[str, ...]:
        """Names of the ablations' networks."""
        return () if self.ablations is None else (*self.ablations.damages, *self.ablations.orders)

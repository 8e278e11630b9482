"""Published JSON configurations as a plan, with a fate for each of their keys.

``files`` reads them, ``recipe`` translates the training, ``plan`` joins both to a plan.
"""

from veloxseg.planning.published.files import PublishedTraining, read_published_training
from veloxseg.planning.published.plan import PublishedPlan, published_plan

__all__ = ["PublishedPlan", "PublishedTraining", "published_plan", "read_published_training"]

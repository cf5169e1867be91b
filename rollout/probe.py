"""What is found out by asking: both revisions of a release, each by its own host, whatever share of the users' traffic it has.

compare, measure and check_bad_input each wait until the revisions are ready, ask a bounded number of questions, a few at a time,
each with a timeout, and mark them so that the servers do not keep them as samples of live requests. A challenger that fails,
hangs or dies becomes evidence; `ProbeError` says that nobody can be judged.
"""

from rollout.bad_input import check_bad_input
from rollout.pairing import compare
from rollout.revision import Arms, NotReadyError, ProbeError
from rollout.timing import measure

__all__ = ["Arms", "NotReadyError", "ProbeError", "check_bad_input", "compare", "measure"]

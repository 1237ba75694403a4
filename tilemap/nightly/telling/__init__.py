"""Who is told what of a pass: log, summary page, metrics, command, webhook."""

from tilemap.nightly.telling.everybody import tell_all
from tilemap.nightly.telling.log import PassLog
from tilemap.nightly.telling.record import outcome_record, summary_lines
from tilemap.nightly.telling.rotation import rotate

__all__ = ["PassLog", "outcome_record", "rotate", "summary_lines", "tell_all"]

"""Everything that knows SQL text: connections, migrations, the judge's call, the journal, policy and records."""

from __future__ import annotations

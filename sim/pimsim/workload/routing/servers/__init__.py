"""Expert routing that inference servers hand out, as a routing trace: vLLM's and SGLang's answers,
arrays that people keep of them, files of SGLang's recorder."""

from pimsim.workload.routing.servers.importing import import_routing
from pimsim.workload.routing.servers.recorded import ImportedRouting

__all__ = ["ImportedRouting", "import_routing"]

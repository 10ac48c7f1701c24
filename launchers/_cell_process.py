"""One of the processes that compute cells of one job at once: python -m launchers._cell_process, a child of the job's.

The first line that comes says which element of which submission; later ones are keys of its cells, "save" and "stop".
What it sends back, for each cell, is that it has come to it, and how that ended. The study's folder is told by this
process itself.
"""

from pathlib import Path
from queue import SimpleQueue

from launchers._element import Element
from launchers._submission import SubmissionFolder
from suite.child_process import Word
from suite.environment import gpu_is_lost
from suite.errors import UserError
from suite.parent_process import Parent
from suite.plan import Cell
from suite.training.checkpoint import Interrupted, Notice


def main() -> None:
    """Compute one cell after the other, as they come, until the job's process is gone or ends this one."""
    parent = Parent()
    told = parent.assignment
    notice, orders = Notice(stop=told["stop"]), SimpleQueue[str]()

    def hear(line: str) -> None:
        if line in ("save", "stop"):
            notice.hear(line)
        else:
            orders.put(line)

    parent.listen(hear)
    folder = SubmissionFolder(Path(told["study"]), told["submission"])
    element = Element(folder, told["array"], told["index"], notice)
    cells, ancestors = folder.read_element(element.number, element.index)
    cell_of = {cell.id.key: cell for cell in cells}
    while True:
        cell = cell_of[orders.get()]
        parent.say({"event": "begun"})
        parent.say(_tried(element, cell, ancestors))


def _tried(element: Element, cell: Cell, ancestors: dict[str, list[str]]) -> Word:
    """Compute a cell, and return how that ended."""
    try:
        status = element.run(cell, ancestors).status
        return {"event": "ended", "status": status, "gpu_is_lost": status == "failed" and gpu_is_lost()}
    except Interrupted as left:
        has_begun = cell.id.key in element.at_work
        return {"event": "interrupted" if has_begun else "stopped", "text": str(left)}
    except UserError as error:
        return {"event": "refused", "text": str(error)}


if __name__ == "__main__":
    main()

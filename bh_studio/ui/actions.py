"""The actions of the window and the menus that hold them. No logic."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot
from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QMainWindow, QMenu

from bh_studio.engine.rules.sides import MOST_SIDES, side_letter


class Actions(QObject):
    """Every command with its name, shortcut and tooltip; the window connects them.

    places: those that go to a place, by the names of their icons. of_compare: those that act on
    what Compare shows.
    """

    recent_chosen = Signal(object)

    def __init__(self, window: QMainWindow) -> None:
        super().__init__(window)
        self._window = window
        new = self._new
        keys = QKeySequence.StandardKey
        self.compare = new("Com&pare", "Ctrl+1", "The answers of all sides, with their settings")
        self.history = new(
            "Histor&y", "Ctrl+2", "Every run, whether it was saved or not, to look through"
        )
        self.history.setShortcuts([QKeySequence("Ctrl+2"), QKeySequence("Ctrl+H")])
        self.models = new("M&odels", "Ctrl+3", "Choose, download, load and unload models")
        self.models.setShortcuts([QKeySequence("Ctrl+3"), QKeySequence("Ctrl+M")])
        self.places = {"compare": self.compare, "history": self.history, "models": self.models}
        group = QActionGroup(window)
        for action in self.places.values():
            action.setCheckable(True)
            action.setIconVisibleInMenu(False)
            group.addAction(action)
        self.compare.setChecked(True)
        self.run = new("&Run", "Ctrl+Return", "Answer the prompt with all sides")
        # The Enter of the number pad counts as another key.
        self.run.setShortcuts([QKeySequence("Ctrl+Return"), QKeySequence("Ctrl+Enter")])
        self.stop = new("&Stop", "Esc", "End the run and keep what is there")
        self.reseed = new(
            "Run with a new see&d", "Ctrl+R", "Draw another seed and answer the prompt with it"
        )
        self.earlier_run = new(
            "&Earlier run of this prompt", "Alt+Left", "Show the run of this prompt before this one"
        )
        self.later_run = new(
            "&Later run of this prompt", "Alt+Right", "Show the run of this prompt after this one"
        )
        self.add_side = new("&Add a side", "Ctrl+T", "Compare with one more rule")
        self.remove_side = new(
            "Re&move side", "Ctrl+W", "Take the side away that is looked at; Ctrl+T brings one back"
        )
        self.sides = tuple(
            new(f"Answer of side &{side_letter(side)}", f"Alt+{side + 1}", "Go to this answer")
            for side in range(MOST_SIDES)
        )
        self.same_text = new(
            "Same &text", "Ctrl+Shift+M", "Have all sides read one given text, rather than write on"
        )
        self.same_text.setCheckable(True)
        self.open_text = new("Open a &text…", None, "Take a text from a file for all sides to read")
        self.new_conversation = new(
            "&New conversation", "Ctrl+N", "Start a new conversation; the turns so far are kept"
        )
        self.new_conversation.setVisible(False)
        self.open = new("&Open…", keys.Open, "Show a saved session, or a text that was read")
        self.save = new("&Save", keys.Save, "Save what is on screen")
        self.save_as = new("Save &as…", "Ctrl+Shift+S", "Save what is on screen to another file")
        self.export_json = new(
            "Statistics as &JSON…", None, "Write texts, counts and statistics as one JSON file"
        )
        self.export_csv = new(
            "Expert counts as &CSV…", None, "Write one row a side, token and layer"
        )
        saving = (self.save, self.save_as, self.export_json, self.export_csv)
        self._of_saving = {action: action.toolTip() for action in saving}
        self.export_experts = new(
            "E&xperts as NumPy…",
            None,
            "Write which experts ran for every token and layer, as vLLM returns them (.npz)",
        )
        self.quit = new("&Quit", "Ctrl+Q", "Close the window; all runs are kept")
        self.find = new("&Find in the answers…", keys.Find, "Find text in the answers of all sides")
        self.next_difference = new(
            "&Next difference", "F3", "Go on to where another side parts from side A"
        )
        self.previous_difference = new(
            "Previous &difference", "Shift+F3", "Go back to where another side parts from side A"
        )
        self.load_embedded = new(
            "&Embedded model", None, "Load the small model that comes with the program"
        )
        self.load_folder = new(
            "Model from &folder…", None, "Load an OLMoE checkpoint from a folder"
        )
        self.unload = new("&Unload model", None, "Give the memory of the loaded model back")
        self.save_calibration = new(
            "Save &calibration…",
            None,
            "Write what the nulls of the loaded model are fitted on to a file for others",
        )
        self.settings = new("&Settings panel", "F9", "Show or hide the settings")
        self.settings.setCheckable(True)
        self.settings.setChecked(True)
        self.inspector = new(
            "Token &inspector", "Ctrl+I", "Show what the router and the rule did for one token"
        )
        self.inspector.setCheckable(True)
        self.charts = new("C&harts", "F10", "Show the charts, or leave their room to the answers")
        self.charts.setCheckable(True)
        self.charts.setChecked(True)
        self.layout_reading = new("&Reading", None, "Leave the room of the charts to the answers")
        self.layout_balanced = new("&Balanced", None, "Answers above, charts below, as at first")
        self.layout_charts = new("&Charts", None, "Give the larger part to the charts")
        self.layout_reset = new(
            "Reset &layout", None, "All parts, folds and charts as they were at the first start"
        )
        self.scroll_together = new(
            "Scroll sides to&gether",
            "Ctrl+L",
            "Scroll the other answers to the token at the top of the one that is scrolled",
        )
        self.scroll_together.setCheckable(True)
        self.scroll_together.setChecked(True)
        self.enlarge = new("&Larger text", "Ctrl++", "Make all text larger")
        # Ctrl++ needs Shift on most keyboards, so Ctrl+= is taken too.
        self.enlarge.setShortcuts([QKeySequence("Ctrl++"), QKeySequence("Ctrl+=")])
        self.shrink = new("S&maller text", "Ctrl+-", "Make all text smaller")
        self.reset_text = new("&Normal text size", "Ctrl+0", "Show text in the system's size")
        self.reading = new("&How to read the numbers", "F1", "What every number means")
        self.about = new("&About BH Studio", None, "Versions and licence")
        self.of_compare = (
            self.reseed, self.earlier_run, self.later_run, self.scroll_together, self.add_side,
            self.remove_side, self.new_conversation, self.same_text, *self.sides,
            self.find, self.next_difference, self.previous_difference, self.settings, self.charts,
            self.inspector, self.layout_reading, self.layout_balanced, self.layout_charts,
            self.layout_reset,
        )  # fmt: skip
        self.recent_menu = QMenu("Recent sessions", window)
        self.recent_menu.setToolTipsVisible(True)
        self.recent_menu.triggered.connect(self._choose_recent)
        self._fill_menus()

    @Slot(bool)
    def show_same_text(self, is_same_text: bool) -> None:
        """Call the commands by what they do with the prompt."""
        self.same_text.setChecked(is_same_text)
        self.run.setText("&Read" if is_same_text else "&Run")
        meaning = (
            "Have all sides read the text" if is_same_text else "Answer the prompt with all sides"
        )
        self.run.setToolTip(f"{meaning} (Ctrl+Return)")

    def give_saving(self, obstacle: str) -> None:
        """Let what is on screen be saved and exported, or say in a sentence why it cannot be."""
        for action, meaning in self._of_saving.items():
            action.setEnabled(not obstacle)
            action.setToolTip(obstacle or meaning)

    def show_recent(self, paths: tuple[str, ...]) -> None:
        """List `paths`, the newest first."""
        self.recent_menu.clear()
        for path in paths:
            # A lone ampersand would become an underline.
            action = self.recent_menu.addAction(Path(path).name.replace("&", "&&"))
            action.setData(path)
            action.setToolTip(path)
        self.recent_menu.setEnabled(bool(paths))

    @Slot(QAction)
    def _choose_recent(self, action: QAction) -> None:
        self.recent_chosen.emit(Path(action.data()))

    def _new(self, text: str, keys: str | QKeySequence.StandardKey | None, meaning: str) -> QAction:
        action = QAction(text, self._window)
        if keys is not None:
            action.setShortcut(QKeySequence(keys))
        shortcut = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
        action.setToolTip(f"{meaning} ({shortcut})" if shortcut else meaning)
        action.setStatusTip("")
        self._window.addAction(action)
        return action

    def _fill_menus(self) -> None:
        bar = self._window.menuBar()
        export = QMenu("&Export", self._window)
        export.addActions([self.export_json, self.export_csv, self.export_experts])
        file = self._menu("&File")
        file.addActions([self.open, self.open_text])
        file.addMenu(self.recent_menu)
        file.addActions([self.history])
        file.addSeparator()
        file.addActions([self.save, self.save_as])
        file.addMenu(export)
        file.addSeparator()
        file.addAction(self.quit)
        edit = self._menu("&Edit")
        edit.addActions([self.find])
        edit.addSeparator()
        edit.addActions([self.next_difference, self.previous_difference])
        run = self._menu("&Run")
        run.addActions([self.run, self.stop, self.reseed, self.new_conversation, self.same_text])
        run.addSeparator()
        run.addActions([self.earlier_run, self.later_run])
        run.addSeparator()
        run.addActions([self.add_side, self.remove_side])
        model = self._menu("&Model")
        model.addActions([self.models, self.load_embedded, self.load_folder])
        model.addSeparator()
        model.addActions([self.unload, self.save_calibration])
        self.view_menu = view = self._menu("&View")
        view.addActions(list(self.places.values()))
        view.addSeparator()
        view.addActions([self.settings, self.charts, self.inspector])
        layout = QMenu("Layo&ut", self._window)
        layout.setToolTipsVisible(True)
        layout.addActions([self.layout_reading, self.layout_balanced, self.layout_charts])
        layout.addSeparator()
        layout.addAction(self.layout_reset)
        view.addMenu(layout)
        view.addSeparator()
        view.addActions(self.sides)
        view.addSeparator()
        view.addActions([self.scroll_together])
        view.addSeparator()
        view.addActions([self.enlarge, self.shrink, self.reset_text])
        about = self._menu("&Help")
        about.addActions([self.reading, self.about])
        bar.setAccessibleName("Menus")

    def _menu(self, title: str) -> QMenu:
        menu = self._window.menuBar().addMenu(title)
        menu.setToolTipsVisible(True)
        return menu

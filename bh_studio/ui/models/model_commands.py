"""What the Model menu does: the page of models, quick loads, unloading, saving a calibration."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt, Signal, Slot
from PySide6.QtWidgets import QFileDialog, QWidget

from bh_studio.engine.protocol.events import Failed
from bh_studio.settings import Settings
from bh_studio.ui.models.calibration_choice import FILES
from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.models.downloads import Downloads, Phase
from bh_studio.ui.widgets.file_name import fitting, name_from
from bh_studio.ui.widgets.theme import Theme

# The cache of the hub and the page are imported when they are first needed: 30 ms and more that
# would come before the first painted window.
if TYPE_CHECKING:
    from bh_studio.ui.models.page import ModelsPage
    from bh_studio.ui.state.models.hub_statuses import HubStatuses
    from bh_studio.ui.state.models.model_shelf import ModelShelf

EMBEDDED = "embedded"
_SUFFIX = ".npz"


class ModelCommands(QObject):
    """Owns the downloads, the shelf of models and their page."""

    failed = Signal(object)
    notified = Signal(str)

    def __init__(
        self,
        engine: EngineModel,
        theme: Theme,
        settings: Settings,
        window: QWidget,
        downloads: Downloads | None = None,
        statuses: HubStatuses | None = None,
    ) -> None:
        super().__init__(window)
        self._engine = engine
        self._theme = theme
        self._window = window
        self._settings = settings
        self.downloads = downloads or Downloads(parent=self)
        self._statuses = statuses
        self._shelf: ModelShelf | None = None
        self._page: ModelsPage | None = None
        self.file_dialog: QFileDialog | None = None
        self.downloads.ended.connect(self._tell_ended)
        engine.model_changed.connect(self._keep_loaded)
        engine.calibration_saved.connect(self._tell_saved)

    def remember(self, settings: Settings) -> Settings:
        """`settings` with the page's choices and the models that were used."""
        if self._shelf is not None:
            settings = dataclasses.replace(settings, recent_models=self._shelf.recent)
        if self._page is None:
            return settings
        panel = self._page.load_panel
        return dataclasses.replace(
            settings,
            model_device=panel.device.value,
            model_dtype=panel.dtype.value,
            splitters={**settings.splitters, **self._page.sizes()},
        )

    def shutdown(self) -> None:
        """End the downloads, keeping what is here; returns when nothing of them runs any more."""
        self.downloads.shutdown()
        if self._statuses is not None:
            self._statuses.shutdown()

    @property
    def shelf(self) -> ModelShelf:
        """The models that are offered."""
        if self._shelf is None:
            from bh_studio.ui.state.models.hub_statuses import HubStatuses
            from bh_studio.ui.state.models.model_shelf import ModelShelf

            if self._statuses is None:
                self._statuses = HubStatuses(parent=self)
            self._statuses.failed.connect(self.failed)
            recent = self._settings.recent_models
            self._shelf = ModelShelf(self._engine, self.downloads, self._statuses, recent, self)
        return self._shelf

    @property
    def page(self) -> ModelsPage:
        """The place where they are shown, built when it is first asked for."""
        if self._page is None:
            from bh_studio.ui.models.page import ModelsPage

            self._page = page = ModelsPage(self._engine, self.shelf, self._theme, self._window)
            page.load_panel.device.set_value(self._settings.model_device)
            page.load_panel.dtype.set_value(self._settings.model_dtype)
            page.show_sizes(self._settings.splitters)
            page.list.select(self.shelf.loaded_source)
        return self._page

    @property
    def is_on_screen(self) -> bool:
        """Whether that is where a person looks."""
        return self._page is not None and self._page.isVisible()

    @Slot()
    def load_embedded(self) -> None:
        """Load the model that comes with the program."""
        self._engine.load(EMBEDDED)

    @Slot()
    def ask_for_folder(self) -> None:
        """Ask for a folder and load the model in it."""
        dialog = QFileDialog(self._window, "Folder with a checkpoint")
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.fileSelected.connect(self._engine.load)
        self._open(dialog)

    @Slot()
    def ask_where_to_save(self) -> None:
        """Ask for a file and write the calibration of the loaded model to it."""
        if not self._engine.is_ready or self._engine.model is None:
            return
        dialog = QFileDialog(self._window, "Save calibration", str(Path.home()), FILES)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(_SUFFIX.removeprefix("."))
        name = name_from(self._engine.model.name, "model")
        dialog.selectFile(fitting(name, f"-calibration{_SUFFIX}"))
        dialog.fileSelected.connect(self._save_calibration)
        self._open(dialog)

    def _open(self, dialog: QFileDialog) -> None:
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.file_dialog = dialog
        dialog.open()

    @Slot(str)
    def _save_calibration(self, name: str) -> None:
        self._engine.save_calibration(Path(name))

    @Slot()
    def _keep_loaded(self) -> None:
        """Offer what was loaded again, also if it came from a menu or the command line."""
        model = self._engine.model
        if model is not None and model.id != EMBEDDED:
            self.shelf.keep_loaded()

    @Slot(str)
    def _tell_ended(self, source: str) -> None:
        """Tell how a download ended that nobody was looking at."""
        view = self.downloads.view(source)
        if view is None or self.is_on_screen:
            return
        if view.phase is Phase.FAILED:
            message = f"The download of {source} failed. {view.message}"
            self.failed.emit(Failed(message, view.advice, view.details))
        elif view.phase is Phase.FINISHED:
            self.notified.emit(f"{source} is complete; View > Models loads it.")

    @Slot(object)
    def _tell_saved(self, path: Path) -> None:
        self.notified.emit(f"Calibration saved to {path}")
